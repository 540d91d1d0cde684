"""What finished experiments wrote, and their scores as blocks of seeds and prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mcpipe.core.records import JSON
from mcpipe.core.report import read_report
from studies.blocks import Scores
from studies.plan import Arm, Experiment


@dataclass(frozen=True)
class Trial:
    """A finished experiment and the folder with the inputs of its analysis, as in a checkout."""

    experiment: Experiment
    folder: Path

    @property
    def arm(self) -> Arm:
        """The arm or control that was run."""
        return self.experiment.arm

    @cached_property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The scores of every image by its prompt's key."""
        table = pq.read_table(self.folder / scores_path(self.arm))
        return {row["key"]: row for row in table.to_pylist()}

    def model(self, training: str) -> Path:
        """The folder of a training's adapter, curves and report."""
        return self.folder / "data" / "models" / training

    def facts(self, training: str) -> JSON:
        """Facts of a training's report."""
        return read_report(self.model(training))["facts"]


def scores_path(arm: Arm) -> str:
    """The file with a row of scores per image of an arm."""
    return f"data/results/{arm.evaluated}/rows.parquet"


def scores_of(trials: Sequence[Trial], metrics: Sequence[str]) -> tuple[list[str], Scores]:
    """The keys of all prompts, and the scores of every arm, each the mean over drawings.

    Raises:
        ValueError: trials answered different prompts.
    """
    prompts = sorted(trials[0].rows)
    for trial in trials:
        if sorted(trial.rows) != prompts:
            raise ValueError(
                f"{trial.experiment.name} answered other prompts than {trials[0].experiment.name}; do arms differ in "
                "pairs?"
            )
    seeds = dict.fromkeys(trial.experiment.seed for trial in trials)
    scores: dict[str, dict[str, np.ndarray]] = {}
    for arm in dict.fromkeys(trial.arm.name for trial in trials):
        drawings = [
            [trial.rows for trial in trials if trial.arm.name == arm and trial.experiment.seed == seed]
            for seed in seeds
        ]
        scores[arm] = {
            metric: np.array([_mean_scores(some, prompts, metric) for some in drawings]) for metric in metrics
        }
    return prompts, scores


def _mean_scores(
    drawings: Sequence[Mapping[str, Mapping[str, Any]]], prompts: Sequence[str], metric: str
) -> list[float]:
    return [float(np.mean([float(rows[key][metric]) for rows in drawings])) for key in prompts]
