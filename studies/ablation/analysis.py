"""Changes between arms beside the paper's, and the figures that say why a change comes out or does not."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from mcpipe.bench.tables import METRICS, OBSERVED
from mcpipe.core.params import Params
from mcpipe.core.records import JSON
from mcpipe.core.report import read_mapping
from mcpipe.report.ablation import Change, SeedRange
from mcpipe.report.published import ABLATION
from mcpipe.report.published import METRICS as PUBLISHED_METRICS
from studies.ablation.images import PAIRS, images_path, is_shown
from studies.plan import Arm, Experiment, StudyPlan, Training
from studies.summary import Summary, summarise
from studies.trials import Trial, scores_path

ENDPOINTS = ("identity_lift", *OBSERVED, *METRICS)
"""Metrics of the tables, in order: what the references add, confusions between people, and the benchmark's own."""
Diagnoses = Mapping[str, Mapping[str, SeedRange]]
"""By title and arm; without arms that have no such figure."""
CONTROL = "other_people"
"""The control that the identity lift needs, of an oracle as well."""
SETTINGS = "params.yaml"
LAYOUTS = "layouts.json"
"""File in the folder of an oracle's trial: the share of its images that have a layout."""
OWN_LESS_CROSS = "detected faces: cosine with their own reference less that with the other's"
"""Title of the figure that is 0 if references are ignored or mixed up."""
HAS_LAYOUT = "images with a layout"
ORACLE = "oracle"
"""End of the name of an oracle's row."""


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
    oracles: list[str]
    """Arms or controls whose images the masked-attention oracle draws once more (`studies.ablation.oracle`)."""

    @model_validator(mode="after")
    def _rows_exist(self) -> Self:
        if unknown := self.published.keys() - self.titles.keys():
            raise ValueError(f"published rows of unknown arms: {sorted(unknown)}")
        if unknown := set(self.published.values()) - {row.name for row in ABLATION.rows}:
            raise ValueError(f"no such rows in {ABLATION.source}: {sorted(unknown)}")
        if unknown := set(self.oracles) - self.titles.keys():
            raise ValueError(f"oracles of unknown arms: {sorted(unknown)}")
        controls = self.settings.get("generate.controls.kinds")
        if self.oracles and not (isinstance(controls, list) and CONTROL in controls):
            raise ValueError(f"oracles need the control {CONTROL}: add it to settings, generate.controls.kinds")
        return self

    def with_oracles(self) -> Self:
        """The plan of the analysis: with an arm for each oracle, compared with what it was drawn from."""
        arms = [oracle_of(arm) for arm in self.rows if arm.name in self.oracles]
        pairs = [[arm.name.removesuffix(ORACLE), arm.name] for arm in arms]
        changes = {"arms": [*self.rows, *arms], "controls": [], "comparisons": [*self.comparisons, *pairs]}
        return self.model_copy(update=changes)


def oracle_of(arm: Arm) -> Arm:
    """The row of an arm's images as the masked-attention oracle draws them."""
    return arm.model_copy(update={"name": f"{arm.name}{ORACLE}", "title": f"{arm.title}, oracle"})


def paths(plan: AblationPlan, experiment: Experiment) -> list[str]:
    """The files of an experiment that the analysis reads."""
    arm, again = experiment.arm, experiment.arm.name in plan.oracles
    stages = {figure.stage for figure in plan.diagnosis} & set(arm.trainings)
    # The whole model of an arm whose images are drawn again, of the others the report alone.
    models = [f"data/models/{stage}/report.json" for stage in sorted(stages - ({arm.evaluated} if again else set()))]
    models += [f"data/models/{arm.evaluated}", SETTINGS] if again else []
    images = [PAIRS, images_path(arm)] if again or (plan.num_shown and is_shown(plan, experiment)) else []
    return [scores_path(arm), *models, *images]


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
    """The plan's figures, the separation of the two people in images, and the share of images with a layout.

    An oracle has no training of its own.
    """
    figures = {OWN_LESS_CROSS: [own_less_cross(trial) for trial in trials]}
    trained = [trial.arm.trainings if layout_share(trial) is None else () for trial in trials]
    for figure in plan.diagnosis:
        figures[figure.title] = [
            fact(trial.facts(figure.stage), figure.fact.split(".")) if figure.stage in stages else None
            for trial, stages in zip(trials, trained, strict=True)
        ]
    if plan.oracles:
        figures[HAS_LAYOUT] = [layout_share(trial) for trial in trials]
    return {title: over_seeds(trials, values) for title, values in figures.items()}


def layout_share(trial: Trial) -> float | None:
    """The share of an oracle's images that have a layout, the others being those of its arm; ``None`` for an arm."""
    file = trial.folder / LAYOUTS
    if not file.is_file():
        return None
    return fact(read_mapping(file), ["share"])


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
