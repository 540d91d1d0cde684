"""Facial hair in the colour of the hair: a beard, a moustache or none."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mcpipe.world.body import Body
from mcpipe.world.canvas import Canvas, curve, steps
from mcpipe.world.colours import scaled
from mcpipe.world.discovery import Attribute
from mcpipe.world.head import INK
from mcpipe.world.traits import Identity

FACIAL_HAIR = {"none": 0.6, "beard": 0.28, "moustache": 0.12}
"""Kinds of facial hair with their shares."""


def _facial_hair(rng: np.random.Generator, _traits: Mapping[str, Any]) -> str:
    return str(rng.choice(list(FACIAL_HAIR), p=list(FACIAL_HAIR.values())))


def _paint_beard(canvas: Canvas, body: Body, label: int) -> None:
    head, shape = body.head, body.head.shape
    if head.identity.facial_hair != "beard":
        return
    jaw = head.outline(0.02 * np.pi, 0.98 * np.pi, 30)
    upper = [
        head.at(x * shape.face_width, (shape.mouth_height - 0.16) * (1.0 - 0.75 * abs(x) ** 2.5))
        for x in steps(-0.93, 0.93, 15)
    ]
    hair = scaled(head.identity.hair_rgb, 0.92)
    canvas.shade(np.concatenate([jaw, upper]), scaled(hair, 1.08), scaled(hair, 0.76), head.downlight, label)
    canvas.stroke(jaw, scaled(hair, INK), 0.9, label=label)


def _paint_moustache(canvas: Canvas, body: Body, _label: int) -> None:
    head, shape = body.head, body.head.shape
    if head.identity.facial_hair != "moustache":
        return
    level = 0.5 * (shape.eye_height + shape.nose_length + shape.mouth_height) + 0.03
    wide = shape.mouth_width + 0.06
    top = curve(
        head.at(-wide, level + 0.10),
        head.at(-0.5 * wide, level - 0.06),
        head.at(0.0, level - 0.02),
        head.at(0.5 * wide, level - 0.06),
        head.at(wide, level + 0.10),
    )
    low = curve(
        head.at(wide, level + 0.10),
        head.at(0.5 * wide, level + 0.09),
        head.at(0.0, level + 0.05),
        head.at(-0.5 * wide, level + 0.09),
        head.at(-wide, level + 0.10),
    )
    canvas.fill(np.concatenate([top, low]), scaled(head.identity.hair_rgb, 0.85))


def _words(identity: Identity) -> dict[str, str]:
    return {"facial_hair": identity.facial_hair}


def _phrase(identity: Identity) -> str | None:
    if identity.facial_hair == "none":
        return None
    # A bald person's hair colour shows in the beard alone.
    colour = f"{identity.hair_colour} " if identity.hair_cut == "bald" else ""
    return f"a {colour}{identity.facial_hair}"


ATTRIBUTE = Attribute(
    order=30,
    part="trait",
    draws={"facial_hair": _facial_hair},
    paints={"jaw": _paint_beard, "lip": _paint_moustache},
    vocabulary={"facial_hair": tuple(FACIAL_HAIR)},
    words=_words,
    phrase=_phrase,
)
