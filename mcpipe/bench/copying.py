"""Faults of detected people: swapped identities, duplicates, and references that are copied rather than redrawn.

Copy-paste compares a located face with its own reference and with all other references of the pool,

    copied = 1 - d(face, own reference) / mean over others d(face, other reference)

so that an exact copy has 1, and a face that resembles its own reference as much as any other has about 0 on average;
negative values mean that it resembles its own reference less. The distance d is measured between the poses of the heads
and between the backgrounds; neither depends on identity.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

GRID = 32
"""Side in pixels at which backgrounds are compared: colours and large shapes, no texture."""
EDGE = GRID // 8
"""Width of the strip along the left, upper and right edge of a face crop that counts as background."""


def background(crop: UInt8[np.ndarray, "S S 3"]) -> Float[np.ndarray, "B 3"]:
    """The colours (0-1) along the edges of a face crop, without the lower one, where the shoulders are."""
    small = np.asarray(Image.fromarray(crop).resize((GRID, GRID), Image.Resampling.BOX), np.float32) / 255
    inside = np.zeros((GRID, GRID), bool)
    inside[EDGE:, EDGE:-EDGE] = True
    return small[~inside]


def background_distance(a: Float[np.ndarray, "B 3"], b: Float[np.ndarray, "B 3"]) -> float:
    """Mean absolute difference of colours, in [0, 1]."""
    return float(np.abs(a - b).mean())


def pose_distance(a: Float[np.ndarray, "5 2"], b: Float[np.ndarray, "5 2"]) -> float:
    """Root mean square distance of landmarks (see `mcpipe.bench.landmarks`), in units of the face's longer side."""
    return float(np.sqrt(((a - b) ** 2).sum(axis=1).mean()))


def copied(own: float, others: Sequence[float]) -> float | None:
    """The copy score of a face: 1 for a copy, 0 for chance; ``None`` without other references."""
    expected = float(np.mean(others)) if len(others) else 0.0
    return 1 - own / expected if expected > 0 else None


def swapped(similarity: Float[np.ndarray, "R F"], pairs: Mapping[int, int]) -> list[bool]:
    """Whether each located face resembles another person of the prompt more than the person assigned to it.

    ``similarity`` holds cosines of references and faces, ``pairs`` the face of each located reference.
    """
    return [bool(similarity[:, face].max() > similarity[reference, face]) for reference, face in pairs.items()]


def is_duplicate(similarity: Float[np.ndarray, "R F"], pairs: Mapping[int, int]) -> bool | None:
    """Whether two located faces are nearest to the same reference; ``None`` if fewer than two are located."""
    nearest = [int(similarity[:, face].argmax()) for face in pairs.values()]
    return len(set(nearest)) < len(nearest) if len(nearest) > 1 else None


def own_minus_cross(same: Sequence[float], cross: Sequence[float]) -> float | None:
    """Mean cosine of located faces with their own references less that with the others; ``None`` without others."""
    return float(np.mean(same) - np.mean(cross)) if len(cross) else None


def same_and_cross(similarity: Float[np.ndarray, "R F"], pairs: Mapping[int, int]) -> tuple[list[float], list[float]]:
    """Cosines of located faces with their own references, and with all other references of the prompt."""
    same = [float(similarity[reference, face]) for reference, face in pairs.items()]
    cross = [
        float(similarity[other, face])
        for reference, face in pairs.items()
        for other in range(len(similarity))
        if other != reference
    ]
    return same, cross
