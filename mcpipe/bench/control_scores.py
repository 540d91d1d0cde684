"""Face-Sim of an arm's controls: the floor, other people's references, another order, and the ceiling."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mcpipe.bench.controls import METRIC_OF, ControlKind
from mcpipe.bench.intervals import Interval, IntervalParams, unit_interval
from mcpipe.bench.metrics import MetricScorers, Reference, Score
from mcpipe.core.rounding import cosines
from mcpipe.core.schemas.benchmark import GeneratedImage, PairPrompt, RealTarget
from mcpipe.core.shards import read_shards
from mcpipe.models.protocols import FaceAnalyser
from mcpipe.objectives.reward import identity_reward

ControlScores = Mapping[str, Mapping[str, float]]
"""Face-Sim by prompt and by the name that each control has among the metrics."""


def control_scores(
    prompts: Sequence[PairPrompt], controls: Path, people: Mapping[str, Reference], scorers: MetricScorers
) -> ControlScores:
    """Face-Sim of every control's images, compared with the people whom the prompt names.

    Raises:
        ValueError: a control lacks a prompt's image.
    """

    def face_sim(prompt: PairPrompt, picture: np.ndarray) -> float:
        return similarity_to(np.stack([people[face].identity for face in prompt.names]), picture, scorers.faces)

    return scores_of_controls(prompts, controls, METRIC_OF, face_sim)


def scores_of_controls(
    prompts: Sequence[PairPrompt],
    controls: Path,
    metric_of: Mapping[ControlKind, str],
    score: Callable[[PairPrompt, np.ndarray], float],
) -> dict[str, dict[str, float]]:
    """The score of every control's images by prompt and by the metric that ``metric_of`` names for the control.

    Raises:
        ValueError: a control lacks a prompt's image.
    """
    scores: dict[str, dict[str, float]] = {prompt.key: {} for prompt in prompts}
    for kind, metric in metric_of.items():
        if not (controls / kind).is_dir():
            continue
        pictures = {drawn.key: drawn.image for drawn in read_shards(controls / kind, GeneratedImage)}
        for prompt in prompts:
            if prompt.key not in pictures:
                raise ValueError(f"{controls / kind} has no picture for the prompt {prompt.key!r}; run generate again")
            scores[prompt.key][metric] = score(prompt, pictures[prompt.key])
    return scores


def similarity_to(identities: np.ndarray, picture: np.ndarray, analyser: FaceAnalyser) -> float:
    """Face-Sim of an image and the embeddings (people, width) of those who should be in it, in [0, 1]."""
    return identity_reward(cosines(identities, analyser.faces(picture).embeddings))


def with_controls(score: Score, controls: Mapping[str, float]) -> Score:
    """The score of an image with the scores of its controls, and the gain over other people's references."""
    beside: dict[str, Any] = dict(controls)
    if score.face_sim is not None and "face_sim_others" in controls:
        beside["identity_lift"] = score.face_sim - controls["face_sim_others"]
    return replace(score, **beside)


def ceiling_of(targets: Path, analyser: FaceAnalyser, params: IntervalParams) -> tuple[dict[str, Interval], int]:
    """Mean Face-Sim of real targets and their own references, and how many people were left out.

    A person is left out if the recogniser finds no face in the reference, since nothing could resemble it. The mean is
    empty if fewer than two targets or people remain.
    """
    values, units, faceless = [], [], 0
    for target in read_shards(targets, RealTarget) if targets.is_dir() else ():
        embeddings = [analyser.faces(reference).identity for reference in target.references]
        detected = [i for i, embedding in enumerate(embeddings) if embedding.any()]
        faceless += len(embeddings) - len(detected)
        if detected:
            identities = np.stack([embeddings[i] for i in detected])
            values.append(similarity_to(identities, target.image, analyser))
            units.append([target.names[i] for i in detected])
    if len(values) < 2 or len({unit for members in units for unit in members}) < 2:
        return {}, faceless
    return {"face_sim_ceiling": unit_interval(values, units, params)}, faceless
