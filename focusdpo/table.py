"""Every arm beside the start: the table of the branch, and the paper's own tables below it."""

from pathlib import Path

from mcpipe.bench.intervals import IntervalParams
from mcpipe.bench.preference_table import ArmRow, arm_row, as_text, read_rows
from mcpipe.bench.published import published_lines
from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder

PUBLISHED_SUITES = ("dreambench-single", "dreambench")
"""Suites of the paper's tables."""
ORDER = ("sft", "dpo", "patch_dpo", "focus_dpo")


class TableParams(Params):
    """Settings of the table."""

    interval: IntervalParams


def run(start: Path, results: Path, table: Path, params: TableParams) -> None:
    """Write ``table.txt`` from the results of the start and of all arms and seeds below ``results``.

    Raises:
        FileNotFoundError: an arm or the start has no results.
        ValueError: they answer different prompts.
    """
    before = read_rows(start)
    rows = [arm_row(arm, seeds_of(results, arm), before, params.interval) for arm in ORDER]
    first = arm_row(start.name, [before], before, params.interval)
    text = as_text(ArmRow(first.name, 1, first.means, {}), rows)
    with whole_folder(table) as folder:
        published = [line for suite in PUBLISHED_SUITES for line in published_lines(suite)]
        (folder / "table.txt").write_text(text + "\n".join([*published, ""]), encoding="utf-8")


def seeds_of(results: Path, arm: str) -> list:
    """The results of every seed of an arm.

    Raises:
        FileNotFoundError: there is none.
    """
    folders = sorted(results.glob(f"{arm}-*"))
    if not folders:
        raise FileNotFoundError(f"no results of {arm} in {results}; has the stage evaluate run?")
    return [read_rows(folder) for folder in folders]
