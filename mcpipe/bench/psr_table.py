"""The tables of the PSR branch: every arm, differences between arms on the same prompts and noise, means by number.

An arm is drawn and scored once per seed of its training. Intervals resample subjects and seeds
(`mcpipe.bench.intervals`). What could not be observed, such as a confusion where nothing was located, is left out of
its mean.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcpipe.bench.by_number import means_by_number, number_lines
from mcpipe.bench.intervals import Interval, IntervalParams, observed_interval
from mcpipe.bench.preference_table import Rows, cells
from mcpipe.bench.tables import LABELS as OF_SCORES

COPIES = "copies"
THINGS = ("object_lift", "dino_i", "dino_i_others", "clip_t", "hps", "detection_rate", "swap_rate", COPIES)
"""Columns of things, the primary one first."""
PEOPLE = ("identity_lift", "face_sim", "face_sim_heldout", "own_minus_cross", "clip_t", "hps", "detection_rate",
          "swap_rate", "copy_paste")  # fmt: skip
"""Columns of people, the primary one first."""
LABELS = {**OF_SCORES, COPIES: "Copies"}
WIDTH = 24


def with_copies(rows: Rows, copying: Path) -> Rows:
    """The scores of one arm and seed with the share of copies.

    Raises:
        FileNotFoundError: the folder has none.
        ValueError: it answers different prompts.
    """
    file = copying / "copies.json"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; has the stage copying run for this arm?")
    copies = json.loads(file.read_text(encoding="utf-8"))[COPIES]
    if copies.keys() != rows.keys():
        raise ValueError(f"{copying} and the scores answer different prompts; run score and copying again")
    return {key: {**row, COPIES: copies[key]} for key, row in rows.items()}


@dataclass(frozen=True)
class SeedsTable:
    """Arms with the scores of every seed, the pairs of arms that are compared, and the columns."""

    arms: Mapping[str, Sequence[Rows]]
    pairs: Sequence[tuple[str, str]]
    metrics: Sequence[str]
    interval: IntervalParams

    def means(self, arm: str, minus: str | None = None) -> dict[str, Interval]:
        """Mean of every metric of an arm, or of its differences to another arm, seed by seed.

        Raises:
            ValueError: seeds answer different prompts, or the arms have different numbers of seeds.
        """
        seeds, others = self.arms[arm], self.arms[minus] if minus else ()
        keys = sorted(seeds[0])
        if any(rows.keys() != seeds[0].keys() for rows in (*seeds, *others)) or (minus and len(others) != len(seeds)):
            raise ValueError("arms and seeds answer different prompts, or differ in number; run the branch again")
        units = [seeds[0][key]["references"] or [key] for key in keys]
        means = {}
        for metric in self.metrics:
            block = values(seeds, keys, metric)
            if minus:
                block = block - values(others, keys, metric)
            if np.isfinite(block).any():
                means[metric] = observed_interval(block, units, self.interval)
        return means

    def as_lines(self) -> list[str]:
        """A line per arm, then one per difference, then means by number of subjects over all seeds."""
        names = {name: (name, None) for name in self.arms} | {f"{a} - {b}": (a, b) for a, b in self.pairs}
        width = max(map(len, names)) + 2
        lines = [f"{'arm':<{width}}seeds" + "".join(f"{LABELS[metric]:>{WIDTH}}" for metric in self.metrics)]
        for name, (arm, minus) in names.items():
            line = cells(self.means(arm, minus), self.metrics, WIDTH, "+" if minus else "")
            lines.append(f"{name:<{width}}{len(self.arms[arm]):>5}{line}")
        by_number = number_lines(self._by_number(), LABELS, self.metrics)
        return lines + [line.replace("people", "subjects") for line in by_number]

    def as_json(self) -> dict[str, object]:
        """The same values by arm, by difference and by number."""

        def plain(means: Mapping[str, Interval]) -> dict[str, list[float]]:
            return {
                metric: [round(value, 6) for value in vars(interval).values()] for metric, interval in means.items()
            }

        return {
            "arms": {name: plain(self.means(name)) for name in self.arms},
            "differences": {f"{arm} - {minus}": plain(self.means(arm, minus)) for arm, minus in self.pairs},
            "by_number": self._by_number(),
        }

    def _by_number(self) -> dict[str, dict[str, dict[str, float]]]:
        """Means of every arm by number of subjects; an image counts once per seed."""
        tables = {}
        for name, seeds in self.arms.items():
            rows = [row for some in seeds for row in some.values()]
            tables[name] = means_by_number([len(row["references"]) for row in rows], rows, self.metrics)
        return tables


def values(seeds: Sequence[Rows], keys: Sequence[str], metric: str) -> np.ndarray:
    """A metric (seeds, prompts); NaN where it could not be observed."""
    observed = [[rows[key].get(metric) for key in keys] for rows in seeds]
    return np.array([[np.nan if value is None else value for value in row] for row in observed], np.float64)
