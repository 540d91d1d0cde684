"""Scores of one image of PSRBench: subject consistency, semantic alignment and preference.

Subject consistency is the mean over the N subjects of cos(DINO(crop(image, c_i)), DINO(crop(reference_i, c_i))), where
both crops are the box of category c_i (arXiv:2512.01236). Subjects are paired with references by category; where k
references share a category, they take its k most certain boxes in turn.

Policies, beside which the published scripts' own count stands in the fields ``..._scripts``:

1. A subject, or a reference, that is not located counts 0. The scripts take the whole image in its place.
2. The most certain box counts. The scripts take the first one that the model returns.
3. An answer of the judge without a valid score is asked for again, then missing. The scripts take 5 of 10.
4. A prompt of the subset Position without a known relation is for the judge. The scripts drop it.
5. A missing image counts 0. The scripts drop it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from mcpipe.bench.psr.judge import Judge
from mcpipe.bench.psr.position import Box, Relation, listed_relation_in, position_score, relation_in
from mcpipe.bench.psr.suite import PsrTask
from mcpipe.models.protocols import Grounder, ImageEncoder, Picture, PreferenceScorer

Boxes = Float[np.ndarray, "N 4"]
Feature = Float[np.ndarray, " D"]
PAIR = 2
"""Number of subjects for which the published scripts tell two of one category apart."""


@dataclass(frozen=True)
class PsrScorers:
    """The models that score an image."""

    grounder: Grounder
    dino: ImageEncoder
    preference: PreferenceScorer
    judge: Judge


@dataclass(frozen=True)
class PsrReference:
    """Features of a reference in DINO space, of unit length."""

    located: Feature | None
    """The most certain box of its category; ``None`` if it is not located."""
    in_scripts: Feature
    """The first box of its category, or the whole image."""


@dataclass(frozen=True)
class PsrScore:
    """Scores of one image; ``None`` where a metric is undefined for it."""

    subject_consistency: float | None
    """In [-1, 1]; ``None`` if a reference is missing from the folder."""
    semantic_alignment: float | None
    """In [0, 1]; ``None`` if the judge gave no valid score."""
    preference: float
    detection_rate: float
    """Share of the subjects that are located in the image, in [0, 1]."""
    subject_consistency_scripts: float | None = None
    semantic_alignment_scripts: float | None = None
    aligned_by: Literal["rules", "judge", ""] = ""
    """What `semantic_alignment` comes from; empty for a missing image."""
    attempts: int = 0
    """Number of answers of the judge."""


@dataclass(frozen=True)
class _Located:
    """Boxes of the subjects of a prompt; ``None`` for a subject without a box."""

    ours: Sequence[Box | None]
    in_scripts: Sequence[Box | None]


def embed_reference(picture: Picture, category: str, scorers: PsrScorers) -> PsrReference:
    """Features of a reference whose subject is called ``category``."""
    boxes = _located(picture, (category,), scorers.grounder)
    crops = [crop(picture, box) for box in (boxes.ours[0], boxes.in_scripts[0])]
    features = scorers.dino.pictures([picture if cut is None else cut for cut in crops])
    return PsrReference(None if crops[0] is None else features[0], features[1])


def score_image(
    picture: Picture, task: PsrTask, references: Mapping[tuple[str, str], PsrReference], scorers: PsrScorers
) -> PsrScore:
    """Scores of an image; ``references`` holds features by path and category, some of which may be missing."""
    boxes = _located(picture, task.categories, scorers.grounder)
    crops = [crop(picture, box) for box in boxes.ours]
    own = [references.get(pair) for pair in zip(task.references, task.categories, strict=True)]
    known = [reference for reference in own if reference is not None]
    consistency = consistency_scripts = None
    if len(known) == len(own):
        cuts = [picture if cut is None else cut for cut in (*crops, *(crop(picture, b) for b in boxes.in_scripts))]
        features = scorers.dino.pictures(cuts)
        consistency = float(np.mean(_cosines(known, crops, features[: len(known)])))
        seen = zip(known, features[len(known) :], strict=True)
        consistency_scripts = float(np.mean([reference.in_scripts @ feature for reference, feature in seen]))
    alignment, alignment_scripts, aligned_by, attempts = _alignment(picture, task, boxes, scorers.judge)
    return PsrScore(
        subject_consistency=consistency,
        semantic_alignment=alignment,
        preference=float(scorers.preference.scores([picture], [task.prompt])[0]),
        detection_rate=float(np.mean([cut is not None for cut in crops])),
        subject_consistency_scripts=consistency_scripts,
        semantic_alignment_scripts=alignment_scripts,
        aligned_by=aligned_by,
        attempts=attempts,
    )


def missing_image(task: PsrTask, references: Mapping[tuple[str, str], PsrReference]) -> PsrScore:
    """The score of a missing image: 0 for every metric that the image would have; the scripts drop it."""
    has_references = all(pair in references for pair in zip(task.references, task.categories, strict=True))
    return PsrScore(0.0 if has_references else None, 0.0, 0.0, 0.0)


def crop(picture: Picture, box: Box | None) -> Picture | None:
    """The part of an image inside a box, cut to whole pixels inside the image; ``None`` if nothing is left."""
    if box is None:
        return None
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = np.clip(box, 0, [width, height, width, height]).astype(int)
    return picture[y0:y1, x0:x1] if x1 > x0 and y1 > y0 else None


def _located(picture: Picture, categories: Sequence[str], grounder: Grounder) -> _Located:
    detections = {category: grounder.boxes(picture, category) for category in dict.fromkeys(categories)}
    ours: list[Box | None] = []
    in_scripts: list[Box | None] = []
    for place, category in enumerate(categories):
        boxes, certainties = detections[category]
        rank = categories[:place].count(category)
        best_first = boxes[np.argsort(-certainties, kind="stable")]
        ours.append(_at(best_first, rank))
        in_scripts.append(_at(boxes, rank if len(categories) == PAIR else 0))
    return _Located(ours, in_scripts)


def _at(boxes: Boxes, place: int) -> Box | None:
    return boxes[place] if place < len(boxes) else None


def _cosines(
    references: Sequence[PsrReference], crops: Sequence[Picture | None], features: Float[np.ndarray, "N D"]
) -> list[float]:
    """The cosine of each subject and its reference, 0 if either is not located."""
    return [
        0.0 if cut is None or reference.located is None else float(reference.located @ feature)
        for reference, cut, feature in zip(references, crops, features, strict=True)
    ]


def _alignment(
    picture: Picture, task: PsrTask, boxes: _Located, judge: Judge
) -> tuple[float | None, float | None, Literal["rules", "judge"], int]:
    """Semantic alignment, the published scripts' figure, what it comes from and the number of the judge's answers."""
    if task.subset != "position":
        verdict = judge.verdict(picture, task.subset, task.prompt)
        return verdict.score, verdict.in_scripts, "judge", verdict.num_attempts
    listed = listed_relation_in(task.prompt)
    # The rules' script looks for each category by itself, and so takes one box twice for two subjects of one category.
    twice = task.categories[:1] == task.categories[1:PAIR]
    pair = (boxes.in_scripts[0],) * PAIR if twice else boxes.in_scripts
    in_scripts = None if listed is None else _rule(listed, pair)
    relation = relation_in(task.prompt)
    if relation is None or len(task.categories) < PAIR:
        verdict = judge.verdict(picture, task.subset, task.prompt)
        return verdict.score, in_scripts, "judge", verdict.num_attempts
    return _rule(relation, boxes.ours), in_scripts, "rules", 0


def _rule(relation: Relation, boxes: Sequence[Box | None]) -> float:
    """The score of a relation of the first two subjects; 0 if one of them is not located."""
    if len(boxes) < PAIR or boxes[0] is None or boxes[1] is None:
        return 0.0
    return position_score(relation, boxes[0], boxes[1])
