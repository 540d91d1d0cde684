"""Verification by embeddings: true accepts at a rate of false accepts.

A face that is not detected counts as a person who is not recognised.
"""

from dataclasses import dataclass

import numpy as np

from mcpipe.models.protocols import FaceAnalyser
from zoo.scores.draw import best_overlap

SAME_IOU = 0.5
CLEARLY_VISIBLE = 0.6
"""Minimum visible share of a face that should be detected."""

MISSING = np.full(512, np.nan, np.float32)
"""The embedding of a face that is not detected."""


@dataclass(frozen=True)
class Sighting:
    """One person in one image."""

    who: int
    scene: int
    moment: int
    """0 for the initial frame of a clip, 1 for the middle one."""
    embedding: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """All pairs of sightings, cosines (n, n), NaN where a face is missing."""

    cosines: np.ndarray
    same: np.ndarray
    same_scene: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """Acceptance at some rates of false accepts."""

    rates: dict[float, float]
    """Share of genuine pairs accepted, by the share of impostor pairs accepted."""
    genuine: int
    impostor: int


def embeddings_at(faces: FaceAnalyser, picture: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
    """The embedding of the face detected at each true box, or `MISSING`."""
    detections = faces.faces(picture)
    matches = [best_overlap(box, detections.boxes) for box in boxes]
    return [detections.embeddings[best] if shared >= SAME_IOU else MISSING for best, shared in matches]


def compared(sightings: list[Sighting]) -> Comparison:
    """Every sighting against every other."""
    vectors = np.stack([sighting.embedding for sighting in sightings])
    who, scene = (
        np.array([sighting.who for sighting in sightings]),
        np.array([sighting.scene for sighting in sightings]),
    )
    return Comparison(vectors @ vectors.T, who[:, None] == who[None], scene[:, None] == scene[None])


def verdict(cosines: np.ndarray, genuine: np.ndarray, impostor: np.ndarray, rates: tuple[float, ...]) -> Verdict:
    """Acceptance of the genuine pairs at thresholds that accept the given shares of impostors.

    ``genuine`` and ``impostor`` are masks (n, n); every unordered pair counts once.
    """
    upper = np.triu(np.ones(cosines.shape, bool), k=1)
    mine, others = cosines[genuine & upper], cosines[impostor & upper]
    others = others[~np.isnan(others)]
    accepted = {rate: float((mine > threshold_at(others, rate)).mean()) for rate in rates}
    return Verdict(accepted, len(mine), len(others))


def threshold_at(impostors: np.ndarray, rate: float) -> float:
    """The cosine above which at most this share of the impostors lies."""
    return float(np.quantile(impostors, 1.0 - rate, method="higher"))
