"""Glasses with round or square rims, worn for good."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mcpipe.world.body import Body
from mcpipe.world.canvas import Canvas, rotated
from mcpipe.world.colours import Colour
from mcpipe.world.discovery import Attribute
from mcpipe.world.traits import Identity

GLASSES_SHARE = 0.3
"""Share of people who wear glasses."""

ROUND_SHARE = 0.5
"""Share of glasses with round rims."""

FRAME_COLOURS: tuple[Colour, ...] = ((28, 28, 34), (176, 40, 44), (44, 70, 160))
"""Colours of frames, all equally likely."""


def _frame(rng: np.random.Generator, _traits: Mapping[str, Any]) -> Colour | None:
    return FRAME_COLOURS[int(rng.integers(len(FRAME_COLOURS)))] if rng.random() < GLASSES_SHARE else None


def _is_round(rng: np.random.Generator, _traits: Mapping[str, Any]) -> bool:
    return bool(rng.random() < ROUND_SHARE)


def _paint(canvas: Canvas, body: Body, _label: int) -> None:
    head, colour = body.head, body.head.identity.glasses
    if colour is None:
        return
    size = head.radius * (0.12 + 0.9 * head.shape.eye_size)
    thick = max(1.1, 0.065 * head.radius)
    narrow = max(0.6, float(head.facing[2]))
    rims = []
    for side in (-1, 1):
        turn = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
        power = 1.0 if head.identity.round_glasses else 0.55
        x = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** power
        y = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** power
        rim = head.eye(side) + rotated(size * np.stack([1.08 * narrow * x, 0.95 * y], axis=1), head.pose.roll)
        canvas.stroke(rim, colour, thick, closed=True)
        rims.append(rim)
        if head.ear(side)[1] > -0.5:
            canvas.stroke(np.stack([rim[12 if side < 0 else 0], head.ear(side)[0]]), colour, 0.8 * thick)
    canvas.stroke(np.stack([rims[0][0], rims[1][12]]), colour, thick)


def _words(identity: Identity) -> dict[str, str]:
    return {"glasses": "none" if identity.glasses is None else "glasses"}


def _phrase(identity: Identity) -> str | None:
    return None if identity.glasses is None else "glasses"


ATTRIBUTE = Attribute(
    order=40,
    part="trait",
    draws={"glasses": _frame, "round_glasses": _is_round},
    paints={"eyewear": _paint},
    vocabulary={"glasses": ("glasses", "none")},
    words=_words,
    phrase=_phrase,
)
