"""Eyes of four colours; captions do not mention them, because they are a few pixels."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mcpipe.world.body import Body
from mcpipe.world.canvas import Canvas, arc, ellipse
from mcpipe.world.colours import Colour, jittered
from mcpipe.world.discovery import Attribute
from mcpipe.world.head import WHITE, Head

EYE_COLOURS: dict[str, Colour] = {
    "brown": (96, 58, 26),
    "blue": (56, 122, 214),
    "green": (56, 152, 84),
    "gray": (124, 134, 146),
}
"""Named colours of eyes, all equally likely."""

EYE_JITTER = 7.0
"""Standard deviation of an eye colour around its named one, in 8-bit steps."""

PUPIL: Colour = (18, 16, 20)
LID: Colour = (46, 34, 34)


def _colour(rng: np.random.Generator, _traits: Mapping[str, Any]) -> str:
    return str(rng.choice(list(EYE_COLOURS)))


def _rgb(rng: np.random.Generator, traits: Mapping[str, Any]) -> Colour:
    return jittered(EYE_COLOURS[traits["eye_colour"]], EYE_JITTER, rng)


def _paint(canvas: Canvas, body: Body, _label: int) -> None:
    for side in (-1, 1):
        _paint_eye(canvas, body.head, side)


def _paint_eye(canvas: Canvas, head: Head, side: int) -> None:
    shape, roll = head.shape, head.pose.roll
    centre, size = head.eye(side), shape.eye_size * head.radius
    narrow = max(0.45, float(head.facing[2]))
    tall = size * max(0.12, 1.0 - head.pose.blink)
    canvas.fill(ellipse(centre, (1.25 * size * narrow, tall), roll, 20), WHITE)
    iris = centre + 0.30 * size * head.facing[:2]
    canvas.fill(ellipse(iris, (0.72 * size * narrow, min(0.78 * size, tall)), roll, 18), head.identity.eye_rgb)
    canvas.fill(ellipse(iris, (0.36 * size * narrow, min(0.38 * size, tall)), roll, 12), PUPIL)
    if head.pose.blink < 0.5:
        glint = iris + size * np.array([0.25 * head.pose.light, -0.28])
        canvas.fill(ellipse(glint, (0.17 * size, 0.17 * size), 0.0, 8), WHITE)
    lid = arc(centre, (1.28 * size * narrow, 1.05 * tall), (np.pi, 2.0 * np.pi), roll, 12)
    canvas.stroke(lid, LID, max(0.7, 0.035 * head.radius))


ATTRIBUTE = Attribute(order=14, part="trait", draws={"eye_colour": _colour, "eye_rgb": _rgb}, paints={"eyes": _paint})
