"""Skin: a place on a scale of five named tones. Its colour is that of all skin that is painted."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mcpipe.world.colours import Colour, as_colour
from mcpipe.world.discovery import Attribute
from mcpipe.world.traits import Identity

SKIN_TONES: dict[str, Colour] = {
    "pale": (255, 226, 206),
    "light": (240, 196, 160),
    "tan": (205, 150, 106),
    "brown": (146, 95, 62),
    "dark": (88, 55, 38),
}
"""Named stops of the skin scale, evenly spaced on [0, 1], all equally likely."""

SKIN_JITTER = 0.08
"""Half-width of a skin tone's band on the scale: tones keep a gap, so that their names stay true."""


def skin_tone(skin: float) -> str:
    """The named tone next to a place on the scale."""
    names = list(SKIN_TONES)
    return names[min(round(skin * (len(names) - 1)), len(names) - 1)]


def skin_rgb(skin: float) -> Colour:
    """The colour at a place on the scale, between the two named tones around it."""
    stops = np.array(list(SKIN_TONES.values()), dtype=float)
    place = np.clip(skin, 0.0, 1.0) * (len(stops) - 1)
    low = int(min(place, len(stops) - 2))
    return as_colour(stops[low] + (place - low) * (stops[low + 1] - stops[low]))


def _skin(rng: np.random.Generator, _traits: Mapping[str, Any]) -> float:
    tones = len(SKIN_TONES)
    skin = int(rng.integers(tones)) / (tones - 1) + rng.uniform(-SKIN_JITTER, SKIN_JITTER)
    return float(np.clip(skin, 0.0, 1.0))


def _words(identity: Identity) -> dict[str, str]:
    return {"skin": skin_tone(identity.skin)}


def _phrase(identity: Identity) -> str:
    return f"{skin_tone(identity.skin)} skin"


ATTRIBUTE = Attribute(
    order=10,
    part="trait",
    draws={"skin": _skin},
    vocabulary={"skin": tuple(SKIN_TONES)},
    words=_words,
    phrase=_phrase,
)
