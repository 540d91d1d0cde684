"""The table of the PSR branch: every arm, differences between arms on the same prompts and noise, means by number.

An arm is drawn and scored once per seed of its training. Intervals resample objects and seeds
(`mcpipe.bench.intervals`). What could not be observed, such as a confusion where nothing was located, is left out of
its mean.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mcpipe.bench.by_number import means_by_number, number_lines
from mcpipe.bench.intervals import Interval, IntervalParams, observed_interval
from mcpipe.bench.preference_table import Rows, read_rows
from mcpipe.bench.tables import LABELS as OF_SCORES

COPIES = "copies"
METRICS = ("object_lift", "dino_i", "dino_i_others", "clip_t", "hps", "detection_rate", "swap_rate", COPIES)
"""Columns, the primary one first."""
LABELS = {**OF_SCORES, COPIES: "Copies"}
WIDTH = 24


def arm_rows(results: Path, copying: Path) -> Rows:
    """The scores of one arm and seed, with the share of copies.

    Raises:
        FileNotFoundError: a folder has none.
        ValueError: they answer different prompts.
    """
    rows, file = read_rows(results), copying / "copies.json"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; has the stage copying run for this arm?")
    copies = json.loads(file.read_text(encoding="utf-8"))[COPIES]
    if copies.keys() != rows.keys():
        raise ValueError(f"{results} and {copying} answer different prompts; run score and copying again")
    return {key: {**row, COPIES: copies[key]} for key, row in rows.items()}


def intervals(seeds: Sequence[Rows], params: IntervalParams, minus: Sequence[Rows] = ()) -> dict[str, Interval]:
    """Mean of every metric of an arm, or of its differences to another arm, seed by seed.

    Raises:
        ValueError: seeds answer different prompts, or the arms have different numbers of seeds.
    """
    keys = sorted(seeds[0])
    if any(rows.keys() != seeds[0].keys() for rows in (*seeds, *minus)) or (minus and len(minus) != len(seeds)):
        raise ValueError("arms and seeds answer different prompts, or differ in number; run the branch again")
    units = [seeds[0][key]["references"] or [key] for key in keys]
    means = {}
    for metric in METRICS:
        block = values(seeds, keys, metric)
        if minus:
            block = block - values(minus, keys, metric)
        if np.isfinite(block).any():
            means[metric] = observed_interval(block, units, params)
    return means


def values(seeds: Sequence[Rows], keys: Sequence[str], metric: str) -> np.ndarray:
    """A metric (seeds, prompts); NaN where it could not be observed."""
    cells = [[rows[key].get(metric) for key in keys] for rows in seeds]
    return np.array([[np.nan if cell is None else cell for cell in row] for row in cells], np.float64)


def as_lines(arms: Mapping[str, Sequence[Rows]], pairs: Sequence[tuple[str, str]], params: IntervalParams) -> list[str]:
    """The table: a line per arm, then one per difference, then means by number of subjects over all seeds."""
    names = [*arms, *(f"{first} - {second}" for first, second in pairs)]
    width = max(map(len, names)) + 2
    lines = [f"{'arm':<{width}}seeds" + "".join(f"{LABELS[metric]:>{WIDTH}}" for metric in METRICS)]
    for name, seeds in arms.items():
        lines.append(f"{name:<{width}}{len(seeds):>5}" + _cells(intervals(seeds, params)))
    for first, second in pairs:
        changes = intervals(arms[first], params, arms[second])
        lines.append(f"{f'{first} - {second}':<{width}}{len(arms[first]):>5}" + _cells(changes, sign="+"))
    return lines + [line.replace("people", "subjects") for line in number_lines(_by_number(arms), LABELS, METRICS)]


def as_json(
    arms: Mapping[str, Sequence[Rows]], pairs: Sequence[tuple[str, str]], params: IntervalParams
) -> dict[str, object]:
    """The same values by arm, by difference and by number."""

    def plain(means: Mapping[str, Interval]) -> dict[str, list[float]]:
        return {metric: [round(value, 6) for value in vars(interval).values()] for metric, interval in means.items()}

    return {
        "arms": {name: plain(intervals(seeds, params)) for name, seeds in arms.items()},
        "differences": {
            f"{first} - {second}": plain(intervals(arms[first], params, arms[second])) for first, second in pairs
        },
        "by_number": _by_number(arms),
    }


def _by_number(arms: Mapping[str, Sequence[Rows]]) -> dict[str, dict[str, dict[str, float]]]:
    """Means of every arm by number of subjects; an image counts once per seed."""
    tables = {}
    for name, seeds in arms.items():
        rows = [row for some in seeds for row in some.values()]
        tables[name] = means_by_number([len(row["references"]) for row in rows], rows, METRICS)
    return tables


def _cells(means: Mapping[str, Interval], sign: str = "") -> str:
    cells = []
    for metric in METRICS:
        if metric not in means:
            cells.append("-")
            continue
        value, low, high = (f"{end:{sign}.3f}" for end in vars(means[metric]).values())
        cells.append(f"{value} [{low}, {high}]")
    return "".join(f"{cell:>{WIDTH}}" for cell in cells)
