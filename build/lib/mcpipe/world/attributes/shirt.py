"""The shirt that everybody wears: its colour, sleeves and collar, which are those of all cloth that is painted."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mcpipe.world.colours import COLOUR_JITTER, COLOURS, Colour, jittered
from mcpipe.world.discovery import Attribute
from mcpipe.world.traits import Outfit

LONG_SLEEVES_SHARE = 0.5
"""Share of shirts with sleeves down to the wrist; others end at the elbow."""

COLLAR_SHARE = 0.5
"""Share of shirts with a collar."""


def _colour(rng: np.random.Generator, _traits: Mapping[str, Any]) -> str:
    return str(rng.choice(list(COLOURS)))


def _rgb(rng: np.random.Generator, traits: Mapping[str, Any]) -> Colour:
    return jittered(COLOURS[traits["colour"]], COLOUR_JITTER, rng)


def _long_sleeves(rng: np.random.Generator, _traits: Mapping[str, Any]) -> bool:
    return bool(rng.random() < LONG_SLEEVES_SHARE)


def _collar(rng: np.random.Generator, _traits: Mapping[str, Any]) -> bool:
    return bool(rng.random() < COLLAR_SHARE)


def _words(outfit: Outfit) -> dict[str, str]:
    return {"shirt_colour": outfit.colour}


def _phrase(outfit: Outfit) -> str:
    return f"{outfit.colour} shirt"


ATTRIBUTE = Attribute(
    order=50,
    part="shirt",
    draws={"colour": _colour, "rgb": _rgb, "long_sleeves": _long_sleeves, "collar": _collar},
    vocabulary={"shirt_colour": tuple(COLOURS)},
    words=_words,
    phrase=_phrase,
)
