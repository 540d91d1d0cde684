"""Objects in a person's hand: balls, boxes, cups, books and flowers of any colour."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mcpipe.world.body import Body
from mcpipe.world.canvas import Canvas, Points, ellipse
from mcpipe.world.colours import COLOUR_JITTER, COLOURS, Colour, jittered, mixed, scaled
from mcpipe.world.discovery import Attribute
from mcpipe.world.head import INK
from mcpipe.world.traits import Outfit

OBJECTS = ("ball", "box", "cup", "book", "flower")
"""Kinds of objects, all equally likely."""

HOLDING_SHARE = 0.65
"""Share of people who hold something."""

OBJECT_LABEL = 100
"""Added to a person's label for the object in that person's hand."""


@dataclass(frozen=True)
class HeldObject:
    """An object in a person's hand."""

    kind: str
    colour: str
    rgb: Colour


def _held(rng: np.random.Generator, _traits: Mapping[str, Any]) -> HeldObject | None:
    if rng.random() >= HOLDING_SHARE:
        return None
    kind, colour = str(rng.choice(OBJECTS)), str(rng.choice(list(COLOURS)))
    return HeldObject(kind=kind, colour=colour, rgb=jittered(COLOURS[colour], COLOUR_JITTER, rng))


def _paint(canvas: Canvas, body: Body, label: int) -> None:
    held = body.outfit.held
    if held is None:
        return
    hand = body.joints[f"{body.pose.holding}_wrist"]
    paint = {"ball": _ball, "box": _box, "cup": _cup, "book": _book, "flower": _flower}[held.kind]
    paint(canvas, hand, body, held.rgb, label + OBJECT_LABEL)


def _ball(canvas: Canvas, hand: Points, body: Body, colour: Colour, label: int) -> None:
    radius = 0.50 * body.unit
    centre = hand - np.array([0.0, 0.40 * body.unit])
    _solid(canvas, ellipse(centre, (radius, radius), 0.0, 32), colour, body, label)
    glint = centre + radius * np.array([0.4 * body.light, -0.45])
    canvas.fill(ellipse(glint, (0.18 * radius, 0.18 * radius), 0.0, 12), mixed(colour, (255, 255, 255), 0.7))


def _box(canvas: Canvas, hand: Points, body: Body, colour: Colour, label: int) -> None:
    unit = body.unit
    _solid(
        canvas, hand + unit * np.array([[-0.5, -0.85], [0.5, -0.85], [0.5, 0.08], [-0.5, 0.08]]), colour, body, label
    )
    band = unit * np.array([[-0.09, -0.85], [0.09, -0.85], [0.09, 0.08], [-0.09, 0.08]])
    canvas.fill(hand + band, mixed(colour, (255, 255, 255), 0.6))


def _cup(canvas: Canvas, hand: Points, body: Body, colour: Colour, label: int) -> None:
    unit = body.unit
    loop = ellipse(hand + unit * np.array([0.40, -0.36]), (0.20 * unit, 0.22 * unit), 0.0, 16)
    canvas.stroke(loop, colour, 0.10 * unit, closed=True, label=label)
    _solid(
        canvas,
        hand + unit * np.array([[-0.38, -0.80], [0.38, -0.80], [0.28, 0.10], [-0.28, 0.10]]),
        colour,
        body,
        label,
    )
    canvas.fill(ellipse(hand + unit * np.array([0.0, -0.80]), (0.38 * unit, 0.10 * unit), 0.0, 20), scaled(colour, 0.5))


def _book(canvas: Canvas, hand: Points, body: Body, colour: Colour, label: int) -> None:
    unit = body.unit
    pages = unit * np.array([[-0.36, -0.92], [0.46, -0.92], [0.46, 0.06], [-0.36, 0.06]])
    _solid(canvas, hand + pages, (240, 234, 214), body, label)
    _solid(canvas, hand + pages + unit * np.array([-0.08, 0.06]), colour, body, label)
    title = unit * np.array([[-0.26, -0.66], [0.20, -0.66], [0.20, -0.50], [-0.26, -0.50]])
    canvas.fill(hand + title, mixed(colour, (255, 255, 255), 0.65))


def _flower(canvas: Canvas, hand: Points, body: Body, colour: Colour, label: int) -> None:
    unit = body.unit
    bloom = hand + unit * np.array([0.0, -0.85])
    canvas.stroke(np.stack([hand + np.array([0.0, 0.3 * unit]), bloom]), (52, 132, 60), 0.10 * unit, label=label)
    for turn in np.linspace(0.0, 2.0 * np.pi, 6, endpoint=False):
        petal = bloom + 0.24 * unit * np.array([np.cos(turn), np.sin(turn)])
        canvas.fill(ellipse(petal, (0.20 * unit, 0.20 * unit), 0.0, 14), colour, label)
        canvas.stroke(ellipse(petal, (0.20 * unit, 0.20 * unit), 0.0, 14), scaled(colour, 0.7), 0.6, closed=True)
    canvas.fill(ellipse(bloom, (0.17 * unit, 0.17 * unit), 0.0, 14), (250, 206, 70), label)


def _solid(canvas: Canvas, shape: Points, colour: Colour, body: Body, label: int) -> None:
    canvas.shade(shape, scaled(colour, 1.10), scaled(colour, 0.76), body.head.downlight, label)
    canvas.stroke(shape, scaled(colour, INK), 0.9, closed=True, label=label)


def _words(outfit: Outfit) -> dict[str, str]:
    held = outfit.held
    return {
        "object": "none" if held is None else held.kind,
        "object_colour": "none" if held is None else held.colour,
    }


def _phrase(outfit: Outfit) -> str | None:
    return None if outfit.held is None else f"{outfit.held.colour} {outfit.held.kind}"


ATTRIBUTE = Attribute(
    order=70,
    part="object",
    draws={"held": _held},
    paints={"hand": _paint},
    vocabulary={"object": (*OBJECTS, "none"), "object_colour": (*COLOURS, "none")},
    words=_words,
    phrase=_phrase,
)
