"""Every arm beside the start: the table of the branch, and the paper's own tables below it."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from mcpipe.bench.intervals import IntervalParams
from mcpipe.bench.preference_table import ArmRow, arm_row, as_text, read_rows
from mcpipe.bench.published import published_lines
from mcpipe.core.params import Params, TakenFrom
from mcpipe.core.shards import whole_folder
from mcpipe.train.preference.params import Arm

PUBLISHED_SUITES = ("dreambench-single", "dreambench")
"""Suites of the paper's tables."""


class RunsParams(Params):
    """Which arms are trained, and how often."""

    arms: list[Arm] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)


class TableParams(Params):
    """Settings of the table."""

    interval: IntervalParams
    runs: Annotated[RunsParams, TakenFrom("runs")]


def run(start: Path, results: Path, table: Path, params: TableParams) -> None:
    """Write ``table.txt`` from the results of the start and of every run's arms and seeds below ``results``.

    Raises:
        FileNotFoundError: an arm or the start has no results.
        ValueError: they answer different prompts.
    """
    before = read_rows(start)
    rows = []
    for arm in params.runs.arms:
        by_seed = [read_rows(results / f"{arm}-{seed}") for seed in params.runs.seeds]
        rows.append(arm_row(arm, by_seed, before, params.interval))
    first = arm_row(start.name, [before], before, params.interval)
    text = as_text(ArmRow(first.name, 1, first.means, {}), rows)
    with whole_folder(table) as folder:
        published = [line for suite in PUBLISHED_SUITES for line in published_lines(suite)]
        (folder / "table.txt").write_text(text + "\n".join([*published, ""]), encoding="utf-8")
