"""The pattern of a shirt: plain, or striped in a second colour that follows from the first."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mcpipe.world.body import HIP_DROP, SHOULDER_DROP, Body, stripe_colour
from mcpipe.world.canvas import Canvas, Points
from mcpipe.world.discovery import Attribute
from mcpipe.world.traits import Outfit

PATTERNS = ("plain", "striped")
"""Names of the patterns."""

STRIPED_SHARE = 0.4
"""Share of striped shirts."""

STRIPES = 11
"""Stripes of a shirt from the chest to the hem."""


def _pattern(rng: np.random.Generator, _traits: Mapping[str, Any]) -> str:
    return "striped" if rng.random() < STRIPED_SHARE else "plain"


def _paint(canvas: Canvas, body: Body, _label: int) -> None:
    if body.outfit.pattern == "striped":
        for index in range(STRIPES):
            canvas.fill(_stripe(body, index), stripe_colour(body.outfit.rgb))


def _stripe(body: Body, index: int) -> Points:
    """One band across the trunk, (4, 2)."""
    build = body.head.identity.build
    top = SHOULDER_DROP + 0.30 + 0.46 * index
    half = build * np.interp(top, [SHOULDER_DROP + 0.3, SHOULDER_DROP + 0.95, HIP_DROP], [1.2, 0.99, 0.94])
    corners = [(half, top), (half - 0.02, top + 0.22), (-half + 0.02, top + 0.22), (-half, top)]
    return np.stack([body.spine(x, y) for x, y in corners])


def _words(outfit: Outfit) -> dict[str, str]:
    return {"shirt_pattern": outfit.pattern}


def _phrase(outfit: Outfit) -> str | None:
    return None if outfit.pattern == "plain" else outfit.pattern


ATTRIBUTE = Attribute(
    order=60,
    part="shirt",
    draws={"pattern": _pattern},
    paints={"shirt": _paint},
    vocabulary={"shirt_pattern": PATTERNS},
    words=_words,
    phrase=_phrase,
)
