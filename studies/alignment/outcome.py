"""From finished runs to numbers: changes with intervals, and how far seeds lie apart in training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mcpipe.bench.intervals import IntervalParams
from mcpipe.bench.tables import LABELS
from mcpipe.report.ablation import Step
from studies.ablation.table import block_interval
from studies.alignment.arms import GRPO, IPPO, START, Run

SCORES = ("text", "aesthetic", "identity", "heldout")
"""Scores of every picture drawn in training: the rewards and the second recogniser's."""
METRICS = ("clip_t", "hps", "face_sim", "face_sim_heldout", "detection_rate")
COMPARISONS = ((START, IPPO), (START, GRPO), (GRPO, IPPO))
"""Before, after."""
RISING, NOT_FALLING = ("clip_t", "hps"), ("face_sim", "face_sim_heldout")
"""What stage 3 is to do to the benchmark."""

Block = Float[np.ndarray, "seeds prompts"]


@dataclass(frozen=True)
class Change(Step):
    """A step of stage 3."""

    @property
    def verdict(self) -> str:
        """What the interval says; undecided while zero lies in it."""
        return "undecided" if not self.change.excludes_zero else "rises" if self.change.value > 0 else "falls"


@dataclass(frozen=True)
class Course:
    """Trainings of one arm with several seeds, cut to the shortest."""

    ratio: Float[np.ndarray, "seeds updates"]
    """Mean ratio."""
    deviation: Float[np.ndarray, "seeds updates"]
    """Largest distance of a ratio from 1."""
    clipped: Float[np.ndarray, "seeds updates"]
    """Share of steps that clipping kept from being learned."""
    gain: Float[np.ndarray, "seeds iterations"]
    """Mean reward above that of the pictures which the start drew of the same prompts from the same noise."""
    parts: Mapping[str, Float[np.ndarray, "seeds iterations"]]
    """The same of every score by itself."""

    @property
    def later(self) -> Bool[np.ndarray, " updates"]:
        """Updates on a network that has changed since the pictures were drawn: before, every ratio is 1."""
        return self.deviation.max(0) > 0


def blocks(runs: Sequence[Run]) -> tuple[list[str], dict[str, dict[str, Block]]]:
    """The prompts, and every arm's scores by metric.

    Raises:
        ValueError: runs answered different prompts.
    """
    tables: dict[str, list[Mapping[str, Sequence[float]]]] = {}
    for run in runs:
        tables.setdefault(run.arm, []).append(run.scores(METRICS))
    prompts = list(tables[START][0])
    if any(list(scores) != prompts for seeds in tables.values() for scores in seeds):
        raise ValueError("runs answered different prompts; pairs has changed between them")
    values = {arm: np.array([list(scores.values()) for scores in seeds]) for arm, seeds in tables.items()}
    return prompts, {
        arm: {metric: block[:, :, place] for place, metric in enumerate(METRICS)} for arm, block in values.items()
    }


def changes(scores: Mapping[str, Mapping[str, Block]], params: IntervalParams) -> list[Change]:
    """Every comparison in every metric."""
    return [
        Change(before, after, metric, block_interval(scores[after][metric] - scores[before][metric], params))
        for before, after in COMPARISONS
        for metric in METRICS
    ]


def courses(runs: Sequence[Run], weights: Mapping[str, float]) -> dict[str, Course]:
    """How both kinds of ratio trained; ``weights`` of the rewards."""
    still = {run.seed: run for run in runs if run.arm == START}
    total, found = sum(weights.values()), {}
    for arm in (IPPO, GRPO):
        mine = [run for run in runs if run.arm == arm]
        gains = [gained(run, still[run.seed]) for run in mine]
        parts = {name: _stacked([each[name] for each in gains]) for name in SCORES}
        found[arm] = Course(
            ratio=_stacked([run.curve("ratio") for run in mine]),
            deviation=_stacked([run.curve("ratio_deviation") for run in mine]),
            clipped=_stacked([run.curve("clip_share") for run in mine]),
            gain=np.sum([weight / total * parts[name] for name, weight in weights.items()], axis=0),
            parts=parts,
        )
    return found


def gained(run: Run, still: Run) -> dict[str, Float[np.ndarray, " iterations"]]:
    """Mean of every score over each iteration's pictures above that of their twins, which an untrained network drew."""
    twins = {twin_key(row): row for row in still.rewarded}
    gains: dict[int, list[list[float]]] = {}
    for row in run.rewarded:
        twin = twins.get(twin_key(row))
        if twin is not None:
            gains.setdefault(row["iteration"], []).append([row[name] - twin[name] for name in SCORES])
    means = np.array([np.mean(gains[iteration], axis=0) for iteration in sorted(gains)])
    return dict(zip(SCORES, means.T, strict=True))


def twin_key(row: Mapping[str, Any]) -> tuple[int, int, int]:
    """What pictures have in common that two networks drew from the same noise; a prompt may come twice."""
    return row["iteration"], row["place"], row["picture"]


def late(gain: Float[np.ndarray, "seeds iterations"]) -> Float[np.ndarray, " seeds"]:
    """Mean over the last third of the iterations."""
    return gain[:, -max(gain.shape[1] // 3, 1) :].mean(1)


def spread(values: Float[np.ndarray, " seeds"]) -> float:
    """Standard deviation over seeds; not a number with one."""
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def claims(found: Sequence[Change]) -> dict[str, str]:
    """What stage 3 is to do, and whether it comes out."""
    own = {change.metric: change.verdict for change in found if (change.before, change.after) == (START, IPPO)}
    told = {"rises": "comes out", "falls": "reversed", "undecided": "undecided"}
    kept = {"rises": "comes out", "falls": "reversed", "undecided": "no fall shown"}
    return {f"{LABELS[metric]} rises": told[own[metric]] for metric in RISING} | {
        f"{LABELS[metric]} does not fall": kept[own[metric]] for metric in NOT_FALLING
    }


def _stacked(curves: Sequence[Float[np.ndarray, " steps"]]) -> Float[np.ndarray, "seeds steps"]:
    shortest = min(map(len, curves))
    return np.stack([curve[:shortest] for curve in curves])
