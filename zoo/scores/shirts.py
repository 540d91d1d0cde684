"""The named colour of everybody's shirt in an image, real or generated.

People are detected by the zoo's pose detector and segmented by its segmenter. What lies between shoulders and hips is
explained by each named colour as a mixture: the shirt in light and shade, its stripes if it has any, what lies between
two stripes, and anything else (skin, hair, a hand). The colour that explains the pixels best is the shirt's.
"""

from dataclasses import dataclass

import numpy as np

from mcpipe.models.protocols import People, PoseDetector, Segmenter
from mcpipe.world.body import stripe_colour
from mcpipe.world.outfits import COLOURS

LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP = 5, 6, 11, 12
"""COCO's numbers."""

TRUNK = (0.10, 1.0)
"""Measured rows of the trunk, as parts of the way from the shoulders to the hips."""

NARROWING = 0.80
"""Measured width relative to the width between the shoulders, because arms hang outside."""

SHADES = (0.70, 0.78, 0.86, 0.94, 1.02, 1.10)
"""Brightness of a shirt in light and shade, against its named colour."""

DEVIATION = 16.0
"""Deviation of a pixel's channels from what a mixture expects, in 8-bit steps."""

PLAIN = {"shirt": 0.75, "other": 0.25}
STRIPED = {"shirt": 0.35, "stripe": 0.25, "between": 0.15, "other": 0.25}
"""Shares of the classes of a trunk's pixels."""

LEAST_PIXELS = 12


@dataclass(frozen=True)
class SeenPerson:
    """A detected person."""

    box: np.ndarray
    shirt: str | None
    """A name of `COLOURS`, or None if too little of the trunk is visible."""


class ShirtReader:
    """Finds people and reads the colours of what they wear."""

    def __init__(self, pose: PoseDetector, segmenter: Segmenter) -> None:
        """Look with these models."""
        self._pose, self._segmenter = pose, segmenter

    def people(self, picture: np.ndarray) -> list[SeenPerson]:
        """Everybody in an image (H, W, 3) uint8, from left to right."""
        people = self._pose.people(picture)
        masks = self._segmenter.masks(picture, people.boxes)
        order = np.argsort(people.boxes[:, ::2].mean(axis=1), kind="stable")
        return [SeenPerson(people.boxes[index], self._shirt(picture, people, masks, int(index))) for index in order]

    def _shirt(self, picture: np.ndarray, people: People, masks: np.ndarray, index: int) -> str | None:
        rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
        inside = in_trunk(people.keypoints[index], columns, rows) & masks[index]
        return None if inside.sum() < LEAST_PIXELS else shirt_colour(picture[inside])


def in_trunk(keypoints: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which places lie on the trunk of keypoints (17, 3), arms left out."""
    shoulders = keypoints[[LEFT_SHOULDER, RIGHT_SHOULDER], :2]
    top, bottom = shoulders.mean(axis=0), keypoints[[LEFT_HIP, RIGHT_HIP], :2].mean(axis=0)
    down = max(float(bottom[1] - top[1]), 1.0)
    part = (y - top[1]) / down
    middle = top[0] + part * (bottom[0] - top[0])
    half = 0.5 * NARROWING * abs(float(shoulders[0, 0] - shoulders[1, 0]))
    return (part >= TRUNK[0]) & (part <= TRUNK[1]) & (abs(x - middle) <= half)


def shirt_colour(pixels: np.ndarray) -> str:
    """The name of `COLOURS` that best explains pixels (n, 3) of a trunk, plain or striped."""
    return max(COLOURS, key=lambda name: max(_likelihoods(pixels.astype(np.float64), np.array(COLOURS[name]))))


def _likelihoods(pixels: np.ndarray, colour: np.ndarray) -> tuple[float, float]:
    """Log likelihood of pixels for a plain and for a striped shirt of one colour."""
    stripe = np.array(stripe_colour((colour[0], colour[1], colour[2])))
    density = {
        "shirt": np.mean([_density(pixels, np.minimum(colour * shade, 255.0)) for shade in SHADES], axis=0),
        "stripe": _density(pixels, stripe),
        "between": _density(pixels, 0.5 * (0.9 * colour + stripe)),
        "other": np.full(len(pixels), 255.0**-3),
    }
    plain, striped = (
        float(np.log(sum(share * density[kind] for kind, share in shares.items())).sum()) for shares in (PLAIN, STRIPED)
    )
    return plain, striped


def _density(pixels: np.ndarray, mean: np.ndarray) -> np.ndarray:
    distance = (((pixels - mean) / DEVIATION) ** 2).sum(axis=1)
    return np.exp(-0.5 * distance) / (np.sqrt(2.0 * np.pi) * DEVIATION) ** 3
