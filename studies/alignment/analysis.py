"""What stage 3 changes: scores of the benchmark against stage 2, and rewards and ratios in training."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float
from pydantic import model_validator

from mcpipe.bench.tables import LABELS
from mcpipe.core.params import read_params
from mcpipe.core.records import JSON
from mcpipe.report.ablation import Change
from mcpipe.train.rl.params import TrainRLParams
from studies.alignment.average_face import Payment, average_face
from studies.plan import Experiment, StudyPlan
from studies.summary import Summary, summarise
from studies.trials import Trial, scores_path

TRAINING = "train_rl"
SETTINGS, REWARDS = "params.yaml", "rewards.jsonl"
SCORES = ("text", "aesthetic", "identity", "heldout")
"""Scores of every image drawn in training: the rewards, and the similarity by the held-out recogniser."""
METRICS = ("clip_t", "hps", "face_sim", "face_sim_heldout", "detection_rate")
RISING, NOT_FALLING = ("clip_t", "hps"), ("face_sim", "face_sim_heldout")
"""Metrics of the benchmark that stage 3 is to raise, and not to lower."""


class AlignmentPlan(StudyPlan):
    """A study of stage 3: arms are kinds of training, the control is a training that changes nothing."""

    @model_validator(mode="after")
    def _is_about_stage_3(self) -> Self:
        if len(self.controls) != 1:
            raise ValueError(f"alignment has one control, stage 2 itself, not {len(self.controls)}")
        if others := [arm.name for arm in self.arms if arm.evaluated != TRAINING]:
            raise ValueError(f"arms of alignment are evaluated at {TRAINING}, unlike {others}")
        if [self.start, self.paper] not in self.comparisons:
            raise ValueError(f"comparisons lack [{self.start}, {self.paper}], from which the claims follow")
        return self

    @property
    def start(self) -> str:
        """The control: the network with which every training starts."""
        return self.controls[0].name

    @property
    def paper(self) -> str:
        """The arm that is trained as in the paper."""
        return self.arms[0].name


@dataclass(frozen=True)
class TrainingCurves:
    """Trainings of one arm with several seeds, cut to the shortest."""

    ratio: Float[np.ndarray, "seeds updates"]
    """Mean ratio."""
    deviation: Float[np.ndarray, "seeds updates"]
    """Largest distance of a ratio from 1."""
    clipped: Float[np.ndarray, "seeds updates"]
    """Share of steps whose gradient is clipped away."""
    gain: Float[np.ndarray, "seeds iterations"]
    """Mean reward above that of the images which the start drew of the same prompts from the same noise."""
    parts: Mapping[str, Float[np.ndarray, "seeds iterations"]]
    """The same for every score by itself."""

    @property
    def later(self) -> Bool[np.ndarray, " updates"]:
        """Updates of a network that has changed since the images were drawn: before, every ratio is 1."""
        return self.deviation.max(0) > 0


@dataclass(frozen=True)
class AlignmentResult:
    """A finished study of stage 3 in numbers."""

    summary: Summary[AlignmentPlan]
    curves: Mapping[str, TrainingCurves]
    """By arm, without the control."""
    payments: Mapping[str, Payment]
    """Identity rewards by kind of image."""
    stopped: Mapping[str, JSON]
    """By experiment, of trainings that the monitor ended early: iteration and reason."""


def paths(plan: AlignmentPlan, experiment: Experiment) -> list[str]:
    """The files and folders of an experiment that the analysis reads."""
    needed = [scores_path(experiment.arm)]
    if experiment.drawing == 0:
        needed += [SETTINGS, f"data/models/{TRAINING}"]
        if experiment.arm.name == plan.start and experiment.seed == plan.seeds[0]:
            needed += ["data/pairs", f"data/images/{TRAINING}"]
    return needed


def analyse(plan: AlignmentPlan, commit: str, trials: Sequence[Trial]) -> AlignmentResult:
    """The numbers of all trials of a commit.

    Raises:
        ValueError: trials answered different prompts, or a score is missing.
    """
    trained = [trial for trial in trials if trial.experiment.drawing == 0]
    starts = [trial for trial in trained if trial.arm.name == plan.start]
    return AlignmentResult(
        summarise(plan, commit, trials, METRICS, lambda *_: None),
        {arm.name: training_curves([t for t in trained if t.arm.name == arm.name], starts) for arm in plan.arms},
        average_face(starts[0].folder),
        {trial.experiment.name: why for trial in trained if (why := stopped(trial))},
    )


def training_curves(trials: Sequence[Trial], starts: Sequence[Trial]) -> TrainingCurves:
    """Curves of an arm's trainings, each compared with the start of the same seed."""
    weights = read_params(trials[0].folder / SETTINGS, TRAINING, TrainRLParams).rewards.weights
    gains = [gained(rewarded(trial), rewarded(start)) for trial, start in zip(trials, starts, strict=True)]
    parts = {name: _stacked([each[name] for each in gains]) for name in SCORES}
    total = sum(weights.values())
    return TrainingCurves(
        ratio=_stacked([curve(trial, "ratio") for trial in trials]),
        deviation=_stacked([curve(trial, "ratio_deviation") for trial in trials]),
        clipped=_stacked([curve(trial, "clip_share") for trial in trials]),
        gain=np.sum([weight / total * parts[name] for name, weight in weights.items()], axis=0),
        parts=parts,
    )


def gained(
    rows: Sequence[Mapping[str, Any]], start: Sequence[Mapping[str, Any]]
) -> dict[str, Float[np.ndarray, " iterations"]]:
    """Mean of every score over an iteration's images above that of their twins, drawn by an untrained network."""
    twins = {twin_key(row): row for row in start}
    gains: dict[int, list[list[float]]] = {}
    for row in rows:
        twin = twins.get(twin_key(row))
        if twin is not None:
            gains.setdefault(row["iteration"], []).append([row[name] - twin[name] for name in SCORES])
    means = np.array([np.mean(gains[iteration], axis=0) for iteration in sorted(gains)])
    return dict(zip(SCORES, means.T, strict=True))


def twin_key(row: Mapping[str, Any]) -> tuple[int, int, int]:
    """What images have in common that two networks drew from the same noise; a prompt may come twice."""
    return row["iteration"], row["place"], row["picture"]


def rewarded(trial: Trial) -> list[dict[str, Any]]:
    """Scores of every image drawn in training."""
    lines = (trial.model(TRAINING) / REWARDS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def stopped(trial: Trial) -> JSON:
    """The iteration before which the training was ended early and the reason; ``None`` if it was not."""
    facts = trial.facts(TRAINING)
    return facts.get("stopped") if isinstance(facts, dict) else None


def curve(trial: Trial, name: str) -> Float[np.ndarray, " updates"]:
    """A number of every optimiser step."""
    with (trial.model(TRAINING) / "live" / "plots" / "metrics" / f"{name}.tsv").open() as lines:
        return np.array([float(row[name]) for row in csv.DictReader(lines, delimiter="\t")])


def late(gain: Float[np.ndarray, "seeds iterations"]) -> Float[np.ndarray, " seeds"]:
    """Mean over the last third of the iterations."""
    return gain[:, -max(gain.shape[1] // 3, 1) :].mean(1)


def spread(values: Float[np.ndarray, " seeds"]) -> float:
    """Standard deviation over seeds; not a number with one seed."""
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def claims(plan: AlignmentPlan, changes: Sequence[Change]) -> dict[str, str]:
    """The paper's claims about stage 3, and whether each comes out."""
    pair = (plan.start, plan.paper)
    own = {change.metric: change.direction for change in changes if (change.before, change.after) == pair}
    rising = {"rises": "comes out", "falls": "reversed", "undecided": "undecided"}
    kept = {"rises": "comes out", "falls": "reversed", "undecided": "no fall shown"}
    return {f"{LABELS[metric]} rises": rising[own[metric]] for metric in RISING} | {
        f"{LABELS[metric]} does not fall": kept[own[metric]] for metric in NOT_FALLING
    }


def _stacked(curves: Sequence[Float[np.ndarray, " steps"]]) -> Float[np.ndarray, "seeds steps"]:
    shortest = min(map(len, curves))
    return np.stack([curve[:shortest] for curve in curves])
