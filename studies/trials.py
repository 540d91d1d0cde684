"""What finished experiments wrote, and their scores as blocks of seeds and prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from mcpipe.bench.intervals import Block
from mcpipe.bench.tables import OBSERVED
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
    def scores(self) -> pd.DataFrame:
        """The scores of every image, indexed by its prompt's key."""
        return pd.read_parquet(self.folder / scores_path(self.arm)).set_index("key")

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

    Of `OBSERVED` a score may be missing, which gives NaN.

    Raises:
        ValueError: trials answered different prompts, or a score is missing.
    """
    prompts = sorted(trials[0].scores.index)
    for trial in trials:
        if sorted(trial.scores.index) != prompts:
            raise ValueError(
                f"{trial.experiment.name} answered other prompts than {trials[0].experiment.name}; do arms differ in "
                "pairs?"
            )
        complete = [metric for metric in metrics if metric not in OBSERVED]
        if lacking := [metric for metric in complete if np.isnan(trial.scores[metric].to_numpy(float)).any()]:
            raise ValueError(f"{trial.experiment.name} lacks scores of {lacking[0]}; run it again")
    table = pd.concat(
        trial.scores[list(metrics)].reset_index().assign(arm=trial.arm.name, seed=trial.experiment.seed)
        for trial in trials
    )
    seeds = list(dict.fromkeys(table["seed"]))
    scores: dict[str, dict[str, Block]] = {}
    for arm in dict.fromkeys(table["arm"]):
        of_arm = table[table["arm"] == arm]
        scores[arm] = {
            metric: of_arm.pivot_table(metric, index="seed", columns="key", aggfunc="mean", dropna=False)
            .reindex(index=seeds, columns=prompts)
            .to_numpy(float)
            for metric in metrics
        }
    return prompts, scores
