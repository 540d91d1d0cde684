"""The table of the FocusDPO branch: every arm beside the start, intervals over people and seeds.

An arm is drawn and scored once per seed of its training. Its mean is over prompts and seeds, and so is its change
against the start on the same prompts and noise; intervals resample people and seeds (`mcpipe.bench.intervals`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mcpipe.bench.intervals import Interval, IntervalParams, block_interval
from mcpipe.bench.tables import LABELS

METRICS = ("identity_lift", "own_minus_cross", "clip_t", "face_sim", "leak_rate")
"""Columns, the primary one first."""
WIDTH = 26
Rows = Mapping[str, Mapping[str, Any]]
"""A row of ``rows.parquet`` by the key of its prompt."""


@dataclass(frozen=True)
class ArmRow:
    """Means of an arm, and their changes against the start; empty for the start itself."""

    name: str
    num_seeds: int
    means: Mapping[str, Interval]
    changes: Mapping[str, Interval]


def read_rows(results: Path) -> Rows:
    """The scores of one arm and seed.

    Raises:
        FileNotFoundError: the folder has none.
    """
    file = results / "rows.parquet"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; has the stage that evaluates this arm run?")
    return {row["key"]: row for row in pq.read_table(file).to_pylist()}


def arm_row(name: str, seeds: Sequence[Rows], start: Rows, params: IntervalParams) -> ArmRow:
    """Means and changes of an arm over those prompts for which a metric is defined everywhere.

    Raises:
        ValueError: the arm and the start answer different prompts.
    """
    for rows in seeds:
        if rows.keys() != start.keys():
            raise ValueError(f"{name} and the start answer different prompts; run generate and evaluate again")
    means, changes = {}, {}
    for metric in METRICS:
        keys = [key for key in sorted(start) if all(rows[key][metric] is not None for rows in (*seeds, start))]
        units = [start[key]["references"] or [key] for key in keys]
        if len({unit for members in units for unit in members}) < 2:
            continue
        block = np.array([[rows[key][metric] for key in keys] for rows in seeds], np.float64)
        before = np.array([start[key][metric] for key in keys], np.float64)
        means[metric] = block_interval(block, units, params)
        changes[metric] = block_interval(block - before, units, params)
    return ArmRow(name, len(seeds), means, changes)


def as_text(start: ArmRow, arms: Sequence[ArmRow]) -> str:
    """The table: a line with means and one with changes for every arm."""
    width = max(len("against start"), *(len(arm.name) for arm in (start, *arms))) + 2
    lines = [f"{'arm':<{width}}seeds" + "".join(f"{LABELS[metric]:>{WIDTH}}" for metric in METRICS)]
    for arm in (start, *arms):
        lines.append(f"{arm.name:<{width}}{arm.num_seeds:>5}" + cells(arm.means, METRICS, WIDTH))
        if arm is not start:
            lines.append(f"{'against start':<{width}}{'':>5}" + cells(arm.changes, METRICS, WIDTH, "+"))
    return "\n".join(lines) + "\n"


def cells(means: Mapping[str, Interval], metrics: Sequence[str], width: int, sign: str = "") -> str:
    """A line of means with their intervals, one cell of ``width`` characters per metric, "-" for one without a mean."""
    line = []
    for metric in metrics:
        if metric not in means:
            line.append("-")
            continue
        value, low, high = (f"{end:{sign}.3f}" for end in vars(means[metric]).values())
        line.append(f"{value} [{low}, {high}]")
    return "".join(f"{cell:>{width}}" for cell in line)
