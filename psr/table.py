"""The table of the branch, and the funnel of the synthetic data above it."""

import json
from collections.abc import Sequence
from pathlib import Path

from mcpipe.bench.intervals import IntervalParams
from mcpipe.bench.psr_table import Rows, arm_rows, as_json, as_lines
from mcpipe.core.params import Params
from mcpipe.core.report import read_report
from mcpipe.core.shards import whole_folder
from psr.arms import COMPARED, REINFORCED, SUPERVISED


class TableParams(Params):
    """Settings of the table."""

    interval: IntervalParams


def run(  # noqa: PLR0913  one argument per path
    texts: Path, targets: Path, synthetic: Path, samples: Path, results: Path, copying: Path, table: Path,
    params: TableParams,
) -> None:  # fmt: skip
    """Write ``table.txt``, ``table.json`` and ``funnel.json``.

    Raises:
        FileNotFoundError: a stage or an arm has no results.
        ValueError: arms answer different prompts.
    """
    reports = {folder.name if folder != samples else "samples": read_report(folder)
               for folder in (texts, targets, synthetic, samples)}  # fmt: skip
    funnel = {name: {key: report[key] for key in ("seen", "kept", "dropped")} for name, report in reports.items()}
    arms = {arm: seeds_of(results, copying, arm) for arm in SUPERVISED + REINFORCED}
    lines = ["synthetic data"]
    lines += [
        f"  {name:<10}{step['kept']} of {step['seen']}; dropped {step['dropped']}" for name, step in funnel.items()
    ]
    lines += ["", *as_lines(arms, COMPARED, params.interval), ""]
    with whole_folder(table) as folder:
        (folder / "table.txt").write_text("\n".join(lines), encoding="utf-8")
        for name, content in (("table", as_json(arms, COMPARED, params.interval)), ("funnel", funnel)):
            (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def seeds_of(results: Path, copying: Path, arm: str) -> Sequence[Rows]:
    """The results of every seed of an arm.

    Raises:
        FileNotFoundError: there is none.
    """
    folders = sorted(results.glob(f"{arm}-*"))
    if not folders:
        raise FileNotFoundError(f"no results of {arm} in {results}; has the stage score run?")
    return [arm_rows(folder, copying / folder.name) for folder in folders]
