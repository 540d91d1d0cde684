"""Changes between arms beside the paper's, and the figures that say why a change comes out or does not."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from mcpipe.bench.tables import METRICS, OBSERVED
from mcpipe.core.params import Params
from mcpipe.core.records import JSON
from mcpipe.report.ablation import Change, SeedRange
from mcpipe.report.published import ABLATION
from mcpipe.report.published import METRICS as PUBLISHED_METRICS
from studies.ablation.images import PAIRS, images_path, is_shown
from studies.plan import Experiment, StudyPlan, Training
from studies.summary import Summary, summarise
from studies.trials import Trial, scores_path

ENDPOINTS = ("identity_lift", *OBSERVED, *METRICS)
"""Metrics of the tables, in order: what the references add, confusions between people, and the benchmark's own."""
Diagnoses = Mapping[str, Mapping[str, SeedRange]]
"""By title and arm; without arms that have no such figure."""
OWN_LESS_CROSS = "detected faces: cosine with their own reference less that with the other's"
"""Title of the figure that is 0 if references are ignored or mixed up."""


class Diagnosis(Params):
    """A figure of the trainings' reports."""

    title: str
    stage: Training
    fact: str
    """Dotted path among the stage's facts; a part ``*`` is the mean over all keys."""


class AblationPlan(StudyPlan):
    """A study whose arms are rows of the paper's table 2."""

    diagnosis: list[Diagnosis]
    published: dict[str, str]
    """Rows of the paper's table by arm."""
    num_shown: int = Field(ge=0)
    """Prompts of which every arm's image with the first seed is shown."""

    @model_validator(mode="after")
    def _rows_exist(self) -> Self:
        if unknown := self.published.keys() - self.titles.keys():
            raise ValueError(f"published rows of unknown arms: {sorted(unknown)}")
        if unknown := set(self.published.values()) - {row.name for row in ABLATION.rows}:
            raise ValueError(f"no such rows in {ABLATION.source}: {sorted(unknown)}")
        return self


def paths(plan: AblationPlan, experiment: Experiment) -> list[str]:
    """The files of an experiment that the analysis reads."""
    stages = {figure.stage for figure in plan.diagnosis} & set(experiment.arm.trainings)
    reports = [f"data/models/{stage}/report.json" for stage in sorted(stages)]
    images = [PAIRS, images_path(experiment.arm)] if plan.num_shown and is_shown(plan, experiment) else []
    return [scores_path(experiment.arm), *reports, *images]


def summary(plan: AblationPlan, commit: str, trials: Sequence[Trial]) -> Summary[AblationPlan]:
    """Scores of all trials of a commit, beside the paper's changes.

    First what the study is about, then the other metrics of the benchmark; without metrics that an arm has nowhere.
    """
    metrics = [metric for metric in ENDPOINTS if all(_has(trial, metric) for trial in trials)]
    return summarise(plan, commit, trials, metrics, partial(published_change, plan.published))


def _has(trial: Trial, metric: str) -> bool:
    """Whether any image of a trial has a metric."""
    return metric in trial.scores and bool(trial.scores[metric].notna().any())


def published_change(published: Mapping[str, str], before: str, after: str, metric: str) -> float | None:
    """The change of a metric between the rows of two arms in the paper's table; ``None`` if it does not have them."""
    rows = {row.name: row.human for row in ABLATION.rows}
    if not {before, after} <= published.keys() or metric not in PUBLISHED_METRICS:
        return None
    column = PUBLISHED_METRICS.index(metric)
    return round(rows[published[after]][column] - rows[published[before]][column], 4)


def tally(changes: Sequence[Change]) -> dict[str, int]:
    """How often each verdict was reached on changes that the paper publishes."""
    verdicts = [change.verdict for change in changes if change.published is not None]
    return {verdict: verdicts.count(verdict) for verdict in ("comes out", "undecided", "reversed")}


def diagnoses(plan: AblationPlan, trials: Sequence[Trial]) -> Diagnoses:
    """The plan's figures, and the separation of the two people in images."""
    figures = {OWN_LESS_CROSS: [own_less_cross(trial) for trial in trials]}
    for figure in plan.diagnosis:
        figures[figure.title] = [
            fact(trial.facts(figure.stage), figure.fact.split(".")) if figure.stage in trial.arm.trainings else None
            for trial in trials
        ]
    return {title: over_seeds(trials, values) for title, values in figures.items()}


def own_less_cross(trial: Trial) -> float | None:
    """How much nearer faces are to their own person than to the other one; ``None`` without both cosines."""
    if not {"same", "cross"} <= set(trial.scores):
        return None
    same, cross = ([c for some in trial.scores[kind].dropna() for c in some] for kind in ("same", "cross"))
    return float(np.mean(same) - np.mean(cross)) if same and cross else None


def over_seeds(trials: Sequence[Trial], values: Sequence[float | None]) -> dict[str, SeedRange]:
    """A figure of every trial that has it, gathered by arm."""
    figures: dict[str, list[float]] = {}
    for trial, value in zip(trials, values, strict=True):
        if value is not None:
            figures.setdefault(trial.arm.name, []).append(value)
    return {arm: SeedRange(sum(some) / len(some), min(some), max(some)) for arm, some in figures.items()}


def fact(facts: JSON, path: Sequence[str]) -> float | None:
    """The number at a path of keys, where ``*`` stands for the mean over all keys; ``None`` if there is none."""
    if not path:
        return float(facts) if isinstance(facts, int | float) else None
    if not isinstance(facts, dict):
        return None
    first, *rest = path
    if first != "*":
        return fact(facts.get(first), rest)
    values = [value for inner in facts.values() if (value := fact(inner, rest)) is not None]
    return sum(values) / len(values) if values else None
