"""Colours of the world: the palette of clothes and objects, and what becomes of a colour in light and shade."""

from functools import lru_cache

import numpy as np

Colour = tuple[float, float, float]
"""Red, green and blue in [0, 255]."""

COLOURS: dict[str, Colour] = {
    "red": (212, 48, 48),
    "orange": (240, 138, 40),
    "yellow": (244, 214, 64),
    "green": (52, 156, 76),
    "blue": (48, 92, 208),
    "purple": (134, 70, 176),
    "pink": (244, 156, 188),
    "white": (240, 240, 236),
    "gray": (140, 142, 148),
    "black": (42, 42, 50),
}
"""Named colours of clothes and objects, all equally likely."""

COLOUR_JITTER = 7.0
"""Standard deviation around a named colour, in 8-bit steps."""


def jittered(colour: Colour, deviation: float, rng: np.random.Generator) -> Colour:
    """A colour near the given one; ``deviation`` in 8-bit steps per channel."""
    return as_colour(np.clip(np.array(colour) + rng.normal(0.0, deviation, 3), 0.0, 255.0))


def as_colour(values: np.ndarray) -> Colour:
    """Three channels (3,) as a colour."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


@lru_cache(maxsize=4096)
def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """``first`` with ``share`` in [0, 1] of ``second``."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


@lru_cache(maxsize=4096)
def scaled(colour: Colour, factor: float) -> Colour:
    """A darker (below 1) or brighter (above 1) colour."""
    red, green, blue = (min(255.0, channel * factor) for channel in colour)
    return red, green, blue
