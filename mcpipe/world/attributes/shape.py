"""Shape of head, face and shoulders, on which everything else is painted; captions do not mention it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from mcpipe.world.discovery import Attribute

SHAPE_RANGES: dict[str, tuple[float, float]] = {
    # half-width of the head
    "face_width": (0.74, 0.95),
    # width of the jaw against a round one
    "jaw": (0.50, 1.00),
    # distance of each eye from the middle line, height of the eyes (positive below the centre), and their size
    "eye_gap": (0.30, 0.42),
    "eye_height": (-0.12, 0.08),
    "eye_size": (0.115, 0.175),
    "brow_thickness": (0.025, 0.075),
    # positive where the outer ends droop
    "brow_tilt": (-0.30, 0.30),
    "nose_length": (0.18, 0.34),
    "nose_width": (0.07, 0.15),
    "mouth_width": (0.20, 0.40),
    # depth of the mouth below the centre
    "mouth_height": (0.48, 0.62),
    "lip_thickness": (0.028, 0.06),
    "ear_size": (0.13, 0.22),
    # how high the hairline begins, and on which side the hair is parted
    "fringe": (0.20, 0.80),
    "parting": (-1.00, 1.00),
}
"""Shape of a face, each value drawn uniformly; lengths in head radii, measured from the centre of the head."""

BUILD_RANGE = (0.86, 1.08)
"""Breadth of the shoulders against the average, drawn uniformly."""


def _uniform(span: tuple[float, float], rng: np.random.Generator, _traits: Mapping[str, Any]) -> float:
    return float(rng.uniform(*span))


ATTRIBUTE = Attribute(
    order=0,
    part="trait",
    draws={name: partial(_uniform, span) for name, span in (SHAPE_RANGES | {"build": BUILD_RANGE}).items()},
)
