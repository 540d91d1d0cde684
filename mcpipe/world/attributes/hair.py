"""Hair: what hangs behind the neck, the brows, and what frames the face."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mcpipe.world.body import Body
from mcpipe.world.canvas import Canvas, Points, arc, curve, ellipse, steps
from mcpipe.world.colours import Colour, jittered, mixed, scaled
from mcpipe.world.discovery import Attribute
from mcpipe.world.head import INK, Head
from mcpipe.world.traits import Identity

HAIR_COLOURS: dict[str, Colour] = {
    "black": (34, 30, 34),
    "brown": (104, 64, 34),
    "blond": (232, 196, 106),
    "red": (196, 74, 26),
    "gray": (172, 174, 180),
    "blue": (58, 96, 204),
    "pink": (236, 110, 170),
    "green": (62, 150, 90),
}
"""Named colours of hair, all equally likely."""

HAIR_CUTS = ("bald", "short", "spiky", "curly", "bobbed", "long", "tied")
"""Hair cuts, all equally likely."""

HAIR_JITTER = 7.0
"""Standard deviation of a hair colour around its named one, in 8-bit steps."""


def _colour(rng: np.random.Generator, _traits: Mapping[str, Any]) -> str:
    return str(rng.choice(list(HAIR_COLOURS)))


def _cut(rng: np.random.Generator, _traits: Mapping[str, Any]) -> str:
    return str(rng.choice(HAIR_CUTS))


def _rgb(rng: np.random.Generator, traits: Mapping[str, Any]) -> Colour:
    return jittered(HAIR_COLOURS[traits["hair_colour"]], HAIR_JITTER, rng)


def _paint_behind(canvas: Canvas, body: Body, label: int) -> None:
    """Paint the hair behind neck and shoulders."""
    head = body.head
    behind = {"curly": _curls, "bobbed": _bob, "long": _long_fall, "tied": _knot}.get(head.identity.hair_cut)
    if behind is not None:
        _paint(canvas, head, head.upright(behind(head)), 0.80, label)


def _paint_front(canvas: Canvas, body: Body, label: int) -> None:
    """Paint the hair over the forehead and beside the cheeks, or over all of a head that looks away."""
    head, cut = body.head, body.head.identity.hair_cut
    if cut == "bald":
        _paint_shine(canvas, head)
    elif head.away:
        _paint_from_behind(canvas, head, label)
    else:
        if cut in ("bobbed", "long"):
            for side in (-1, 1):
                _paint(canvas, head, head.upright(_lock(head, side, 0.62 if cut == "bobbed" else 1.15)), 0.94, label)
        _paint(
            canvas, head, np.concatenate([head.upright(_crown(head, cut)), head.upright(_hairline(head))]), 1.0, label
        )
        _paint_gleam(canvas, head)


def _paint_brows(canvas: Canvas, body: Body, _label: int) -> None:
    for side in (-1, 1):
        _paint_brow(canvas, body.head, side)


def _paint_brow(canvas: Canvas, head: Head, side: int) -> None:
    shape, identity = head.shape, head.identity
    level = shape.eye_height - shape.eye_size - 0.11
    droop = 0.10 * shape.brow_tilt
    inner = head.at(side * (shape.eye_gap - 0.16), level - droop)
    middle = head.at(side * shape.eye_gap, level - 0.05)
    outer = head.at(side * (shape.eye_gap + 0.16), level + droop)
    colour = scaled(head.skin, 0.55) if identity.hair_cut == "bald" else scaled(identity.hair_rgb, 0.72)
    canvas.stroke(curve(inner, middle, outer), colour, 2.0 * shape.brow_thickness * head.radius)


def _paint(canvas: Canvas, head: Head, shape: Points, brightness: float, label: int) -> None:
    hair = scaled(head.identity.hair_rgb, brightness)
    canvas.shade(shape, scaled(hair, 1.14), scaled(hair, 0.74), head.downlight, label)
    canvas.stroke(shape, scaled(hair, INK), 0.9, closed=True, label=label)


def _curls(head: Head) -> Points:
    turn = steps(0.0, 2.0 * np.pi, 90)
    ripple = 1.0 + 0.055 * np.cos(13 * turn)
    return np.stack([1.34 * head.half_width * ripple * np.cos(turn), -0.16 + 1.16 * ripple * np.sin(turn)], axis=1)


def _bob(head: Head) -> Points:
    return _curtain(head, 0.80)


def _long_fall(head: Head) -> Points:
    return _curtain(head, 1.85)


def _curtain(head: Head, length: float) -> Points:
    wide = head.half_width
    left = [(-0.86 * wide, -0.72), (-1.16 * wide, 0.0), (-1.26 * wide, 0.6 * length), (-1.16 * wide, length)]
    right = [(-x, y) for x, y in reversed(left)]
    return curve(*[np.array(point) for point in (*left, (0.0, length + 0.06), *right, (0.0, -1.1))])


def _knot(head: Head) -> Points:
    return ellipse(np.array([0.15 * head.shape.parting, -1.20]), (0.40, 0.36))


def _lock(head: Head, side: int, length: float) -> Points:
    wide = head.half_width
    shift = 0.12 * float(head.facing[0])
    return curve(
        *[
            np.array([side * x * wide + shift * (x < 1.0), y])
            for x, y in (
                (0.84, -0.66),
                (1.10, -0.22),
                (1.19, 0.3 * length),
                (1.24, 0.7 * length),
                (1.14, length),
                (0.96, 0.92 * length),
                (0.92, 0.45 * length),
                (0.86, 0.0),
                (0.84, -0.35),
            )
        ]
    )


def _crown(head: Head, cut: str) -> Points:
    """The outer edge of the hair, from the left temple over the top to the right one."""
    reach = {"spiky": 1.14, "curly": 1.16, "tied": 1.05}.get(cut, 1.10)
    turn = steps(1.02 * np.pi, 1.98 * np.pi, 41)
    edge = np.full(turn.shape, reach)
    if cut == "spiky":
        edge = edge + 0.17 * np.abs((np.arange(41) % 8) / 4.0 - 1.0) * np.sin(turn - np.pi) ** 0.5
    if cut == "curly":
        edge = edge + 0.05 * np.cos(12 * turn)
    return np.stack([0.985 * head.half_width * edge * np.cos(turn), edge * np.sin(turn)], axis=1)


def _hairline(head: Head) -> Points:
    """The lower edge over the forehead, from the right temple back to the left one."""
    shape = head.shape
    across = steps(1.0, -1.0, 21)
    rise = 0.30 + 0.32 * shape.fringe
    level = -rise + 0.46 * np.abs(across) ** 2.4 + 0.12 * shape.parting * across
    level = level + _FRINGES[head.identity.hair_cut](across)
    x = across * head.half_width + 0.35 * head.facing[0] * head.half_width * (1.0 - np.abs(across))
    return np.stack([x, level + 0.25 * head.facing[1]], axis=1)


def _smooth(across: np.ndarray) -> np.ndarray:
    return np.zeros_like(across)


def _jagged(across: np.ndarray) -> np.ndarray:
    return 0.06 * np.abs((across * 4) % 2 - 1) - 0.03


def _wavy(across: np.ndarray) -> np.ndarray:
    return 0.04 * np.cos(12 * across)


_FRINGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "short": _smooth, "spiky": _jagged, "curly": _wavy, "bobbed": _smooth, "long": _smooth, "tied": _smooth,
}  # fmt: skip


def _paint_gleam(canvas: Canvas, head: Head) -> None:
    """A soft highlight on the lit side of the crown."""
    middle = 1.5 + 0.17 * head.pose.light
    line = arc(np.zeros(2), (0.86 * head.half_width, 0.90), ((middle - 0.13) * np.pi, (middle + 0.13) * np.pi), 0.0, 10)
    gleam = scaled(mixed(head.identity.hair_rgb, (255, 255, 255), 0.07), 1.22)
    canvas.stroke(head.upright(line), gleam, 0.055 * head.radius)


def _paint_shine(canvas: Canvas, head: Head) -> None:
    middle = np.array([0.36 * head.half_width * head.pose.light, -0.72])
    canvas.fill(head.upright(ellipse(middle, (0.15, 0.075), -0.5 * head.pose.light, 16)), scaled(head.skin, 1.16))


def _paint_from_behind(canvas: Canvas, head: Head, label: int) -> None:
    cut = head.identity.hair_cut
    nape = {"bobbed": 0.80, "long": 1.85}.get(cut, 0.55)
    wide = 1.04 * head.half_width
    side = [(wide, -0.05), (1.1 * wide, 0.5 * nape), (0.8 * wide, nape)]
    fall = curve(
        *[np.array(p) for p in side], np.array([0.0, nape + 0.08]), *[np.array([-x, y]) for x, y in side[::-1]]
    )
    _paint(canvas, head, head.upright(np.concatenate([_crown(head, cut), fall])), 0.96, label)


def _words(identity: Identity) -> dict[str, str]:
    return {"hair_cut": identity.hair_cut, "hair_colour": identity.hair_colour}


def _phrase(identity: Identity) -> str:
    return "a bald head" if identity.hair_cut == "bald" else f"{identity.hair_cut} {identity.hair_colour} hair"


ATTRIBUTE = Attribute(
    order=20,
    part="trait",
    draws={"hair_colour": _colour, "hair_cut": _cut, "hair_rgb": _rgb},
    paints={"behind": _paint_behind, "brows": _paint_brows, "hair": _paint_front},
    vocabulary={"hair_cut": HAIR_CUTS, "hair_colour": tuple(HAIR_COLOURS)},
    words=_words,
    phrase=_phrase,
)
