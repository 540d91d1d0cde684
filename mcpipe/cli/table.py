"""The verb ``mcpipe table``: the benchmark table of the last run."""

import argparse
from pathlib import Path

from mcpipe.bench.results import read_scores
from mcpipe.bench.tables import comparable, text_table

ARM_ORDER = {"train_single": 0, "train_multi": 1, "train_rl": 2}
"""The arms of the pipeline in the order of training; other systems follow, sorted by name."""


def command(options: argparse.Namespace) -> str:
    """The scores of every arm below a folder of results in the order of training, and the reasons of omitted arms.

    Raises:
        FileNotFoundError: no arm has been evaluated.
        ValueError: scores are damaged.
    """
    arms, left_out = comparable([read_scores(folder) for folder in evaluated_arms(options.results)])
    return "\n".join([*filter(None, [text_table(arms)]), *left_out])


def evaluated_arms(results: Path) -> list[Path]:
    """Folders of evaluated arms, in the order of training."""
    folders = [file.parent for file in sorted(results.glob("*/metrics.json"))]
    if not folders:
        raise FileNotFoundError(f"no metrics.json below {results}; run `dvc repro` first")
    return sorted(folders, key=lambda folder: (ARM_ORDER.get(folder.name, len(ARM_ORDER)), folder.name))
