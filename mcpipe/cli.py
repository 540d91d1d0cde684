"""The command ``mcpipe``: what people want to see or do outside of ``dvc repro``."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from mcpipe.bench.tables import POLICY, from_metrics, text_table


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    parser = argparse.ArgumentParser(prog="mcpipe", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    table = verbs.add_parser("table", help="print the benchmark table of the last run")
    table.add_argument("results", type=Path, nargs="?", default=Path("data/results"))
    options = parser.parse_args(arguments)
    try:
        Console(soft_wrap=True, highlight=False).print(benchmark_table(options.results), markup=False)
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False)
        return 1
    return 0


def benchmark_table(results: Path) -> str:
    """The scores of every arm below a folder of results, in the order of training.

    Raises:
        FileNotFoundError: no arm has been evaluated.
    """
    files = sorted(results.glob("*/metrics.json"), key=lambda file: ARM_ORDER.get(file.parent.name, len(ARM_ORDER)))
    if not files:
        raise FileNotFoundError(f"no metrics.json below {results}; run `dvc repro` first")
    arms = [from_metrics(file.parent.name, json.loads(file.read_text())) for file in files]
    return f"{text_table(arms)}\n{POLICY}"


ARM_ORDER = {"train_single": 0, "train_multi": 1, "train_rl": 2}
"""The arms of the pipeline in the order of training; others come after, by name."""

if __name__ == "__main__":
    sys.exit(main())
