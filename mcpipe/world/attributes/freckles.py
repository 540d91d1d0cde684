"""Freckles on both cheeks, from none to strong; captions do not mention them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mcpipe.world.body import Body
from mcpipe.world.canvas import Canvas, ellipse
from mcpipe.world.colours import Colour, mixed
from mcpipe.world.discovery import Attribute

FRECKLES_RANGE = (-1.50, 1.00)
"""Strength, drawn uniformly; there are none at or below 0, so two in five people have some."""

SPOT: Colour = (120, 60, 30)
SPOTS = ((-0.10, -0.05), (0.02, 0.06), (0.11, -0.06))
"""Places around the middle of a cheek, in head radii."""


def _freckles(rng: np.random.Generator, _traits: Mapping[str, Any]) -> float:
    return float(rng.uniform(*FRECKLES_RANGE))


def _paint(canvas: Canvas, body: Body, _label: int) -> None:
    head = body.head
    strength, shape = head.identity.freckles, head.shape
    if strength <= 0:
        return
    colour = mixed(head.skin, SPOT, 0.35 + 0.35 * strength)
    for side in (-1, 1):
        for x, y in SPOTS:
            place = head.at(side * 0.50 * shape.face_width + x, shape.eye_height + 0.30 + y)
            canvas.fill(ellipse(place, (0.028 * head.radius, 0.028 * head.radius), 0.0, 8), colour)


ATTRIBUTE = Attribute(order=12, part="trait", draws={"freckles": _freckles}, paints={"skin": _paint})
