"""Eight families of things with outlines of their own, painted with pattern and parts.

A thing stands on the origin of its own coordinates: x to the right and y upwards, in units of its size, with the foot
of its axis at (0, 0). Numbers named "share" run over [0, 1] and are mapped to the ranges below.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from mcpipe.world.canvas import Canvas, Points, arc, ellipse, rotated
from mcpipe.world.colours import Colour, mixed, scaled

INK = 0.42
"""Brightness of outlines against their colour."""

LIT, DIM = 1.10, 0.74
"""Brightness of a surface where light meets it, and on the far side."""

PITCH_RANGE = (0.15, 0.26)
"""Distance of stripes, dots and checks."""

TILT_RANGE = (-0.5, 0.5)
"""Turn of a pattern, in radians."""

WHITE: Colour = (255, 255, 255)
METAL: Colour = (150, 152, 160)
PAPER: Colour = (240, 234, 214)
CORK: Colour = (170, 126, 84)


@dataclass(frozen=True)
class Design:
    """What a thing looks like, all of which lasts."""

    rgb: Colour
    pattern: str
    second_rgb: Colour
    """Second colour of a pattern."""
    part: str
    """Which part, or "none"."""
    part_rgb: Colour
    width: float
    """Share of the range of widths of the family."""
    taper: float
    """Share of the range of the sides' slope, or of a neck's or a brim's width."""
    part_size: float
    """Share of the range of the part's size."""
    pitch: float
    """Share of `PITCH_RANGE`."""
    tilt: float
    """Share of `TILT_RANGE`."""


class Pen:
    """Paints in the coordinates of one thing."""

    def __init__(self, canvas: Canvas, foot: tuple[float, float], size: float, turn: float, light: float) -> None:
        """A thing with its foot and its size in pixels, turned clockwise by radians, lit from a side (-1 or 1)."""
        self._canvas, self._foot, self._size, self._turn = canvas, np.array(foot), size, turn
        self._light = np.array([-0.8 * light, 0.6])
        self.label = 0

    def at(self, points: Points) -> Points:
        """Pixels of places of the thing."""
        return self._foot + self._size * rotated(np.asarray(points, float) * (1.0, -1.0), self._turn)

    def solid(self, outline: Points, colour: Colour) -> None:
        """A surface with an outline, shaded across."""
        place = self.at(outline)
        self._canvas.shade(place, scaled(colour, LIT), scaled(colour, DIM), self._light.tolist(), self.label)
        ink = max(0.8, 0.012 * self._size)
        self._canvas.stroke(place, scaled(colour, INK), ink, closed=True, label=self.label)

    def flat(self, outline: Points, colour: Colour) -> None:
        """A surface in one colour, without an outline."""
        self._canvas.fill(self.at(outline), colour, self.label)

    def line(self, points: Points, colour: Colour, thickness: float) -> None:
        """A thick line with an outline, such as a handle."""
        place, thick = self.at(points), thickness * self._size
        self._canvas.stroke(place, scaled(colour, INK), thick + max(1.6, 0.024 * self._size), label=self.label)
        self._canvas.stroke(place, scaled(colour, 0.94), thick, label=self.label)

    def patterned(self, outline: Points, design: Design) -> None:
        """A convex surface with the pattern of the thing."""
        self.solid(outline, design.rgb)
        for piece in _pieces(outline, design):
            inside = clipped(piece, outline)
            if len(inside):
                self.flat(inside, scaled(design.second_rgb, self._brightness(inside, outline)))
        if design.pattern != "plain":
            ink = max(0.8, 0.012 * self._size)
            self._canvas.stroke(self.at(outline), scaled(design.rgb, INK), ink, closed=True, label=self.label)

    def _brightness(self, piece: Points, outline: Points) -> float:
        """Brightness of a piece of a surface, by how far its middle lies from the light."""
        along = self.at(outline) @ self._light
        share = (self.at(piece).mean(axis=0) @ self._light - along.min()) / max(float(np.ptp(along)), 1e-6)
        return LIT + (DIM - LIT) * float(share)


def clipped(piece: Points, outline: Points) -> Points:
    """The part (n, 2) of a convex polygon inside another one; no points if there is none."""
    _, inside = cv2.intersectConvexConvex(piece.astype(np.float32), outline.astype(np.float32))
    # OpenCV returns one point at the end of float32 for polygons that are apart.
    return np.zeros((0, 2)) if inside is None or len(inside) < 3 else inside.reshape(-1, 2).astype(float)


def _pieces(outline: Points, design: Design) -> list[Points]:
    """What a pattern puts on a surface, around the middle of its bounds and beyond them."""
    if design.pattern == "plain":
        return []
    low, high = outline.min(axis=0), outline.max(axis=0)
    middle, reach = 0.5 * (low + high), 0.75 * float(np.hypot(*(high - low)))
    pitch, tilt = between(PITCH_RANGE, design.pitch), between(TILT_RANGE, design.tilt)
    count = int(reach / pitch) + 1
    if design.pattern == "striped":
        ends = np.linspace(-reach, reach, 13)
        return [
            middle + rotated(rectangle((left, (row - 0.25) * pitch), (right, (row + 0.25) * pitch)), tilt)
            for row in range(-count, count + 1)
            for left, right in pairwise(ends)
        ]
    cells = [(column, row) for row in range(-count, count + 1) for column in range(-count, count + 1)]
    if design.pattern == "dotted":
        at = [np.array([column + 0.5 * (row % 2), 0.87 * row]) * pitch for column, row in cells]
        return [middle + rotated(ellipse(centre, (0.30 * pitch, 0.30 * pitch), 0.0, 17)[:-1], tilt) for centre in at]
    side = 0.75 * pitch
    corners = [np.array([column, row]) * side for column, row in cells if (column + row) % 2 == 0]
    return [middle + rotated(rectangle(tuple(corner), tuple(corner + side)), tilt) for corner in corners]


def between(span: tuple[float, float], share: float) -> float:
    """The value at a share of a range."""
    return span[0] + (span[1] - span[0]) * share


def rectangle(low: tuple[float, ...], high: tuple[float, ...]) -> Points:
    """The corners of an upright rectangle."""
    return np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])


def _tapered(bottom: float, top: float, heights: tuple[float, float]) -> Points:
    """A symmetric trapezoid by its half widths."""
    return np.array([[-bottom, heights[0]], [bottom, heights[0]], [top, heights[1]], [-top, heights[1]]])


def _disc(x: float, y: float, across: float, up: float) -> Points:
    """An ellipse without the repeated end of its outline, as clipping needs it."""
    return ellipse(np.array([x, y]), (across, up), 0.0, 33)[:-1]


def _bag(pen: Pen, design: Design) -> None:
    top = between((0.36, 0.52), design.width)
    bottom, rim = top * between((0.86, 1.22), design.taper), 0.60
    if design.part == "strap":
        up = between((0.36, 0.50), design.part_size)
        pen.line(arc(np.array([0.0, rim - 0.04]), (0.88 * top, up), (0.0, np.pi), 0.0, 24), design.part_rgb, 0.055)
    else:
        up = between((0.16, 0.26), design.part_size)
        pen.line(arc(np.array([0.0, rim - 0.02]), (0.42 * top, up), (0.0, np.pi), 0.0, 20), design.part_rgb, 0.085)
    pen.patterned(_tapered(bottom, top, (0.0, rim)), design)
    pen.solid(_tapered(1.02 * top, top, (rim - 0.07, rim)), scaled(design.rgb, 0.8))


def _ball(pen: Pen, design: Design) -> None:
    radius = between((0.36, 0.46), design.width)
    outline = _disc(0.0, radius, radius, radius)
    pen.patterned(outline, design)
    if design.part == "band":
        half = between((0.06, 0.13), design.part_size)
        pen.solid(clipped(rectangle((-1.0, radius - half), (1.0, radius + half)), outline), design.part_rgb)
    glint = _disc(0.42 * radius, 1.48 * radius, 0.13 * radius, 0.13 * radius)
    pen.flat(glint, mixed(design.rgb, WHITE, 0.75))


def _book(pen: Pen, design: Design) -> None:
    half, tall, thick = between((0.27, 0.36), design.width), 0.92, between((0.07, 0.15), design.taper)
    pages = np.array([[-half, tall], [half, tall], [half + thick, tall + 0.07], [-half + thick, tall + 0.07]])
    edge = np.array([[half, 0.0], [half + thick, 0.07], [half + thick, tall + 0.07], [half, tall]])
    pen.solid(pages, PAPER)
    pen.solid(edge, PAPER)
    pen.patterned(rectangle((-half, 0.0), (half, tall)), design)
    pen.solid(rectangle((-half, 0.0), (-0.76 * half, tall)), scaled(design.rgb, 0.72))
    if design.part == "label":
        wide, high = between((0.34, 0.52), design.part_size) * half, between((0.08, 0.15), design.part_size)
        pen.solid(rectangle((-wide + 0.1 * half, 0.66 - high), (wide + 0.1 * half, 0.66 + high)), design.part_rgb)
    if design.part == "band":
        wide = between((0.04, 0.08), design.part_size)
        pen.solid(rectangle((0.5 * half - wide, 0.0), (0.5 * half + wide, tall)), design.part_rgb)


def _bottle(pen: Pen, design: Design) -> None:
    half, neck = between((0.17, 0.25), design.width), between((0.055, 0.10), design.taper)
    pen.solid(rectangle((-neck, 0.6), (neck, 0.92)), scaled(design.rgb, 0.94))
    pen.solid(
        np.concatenate([[[half, 0.56]], arc(np.array([0.0, 0.56]), (half, 0.17), (0.0, np.pi), 0.0, 20)]), design.rgb
    )
    pen.patterned(rectangle((-half, 0.0), (half, 0.57)), design)
    if design.part == "label":
        high = between((0.09, 0.16), design.part_size)
        pen.solid(rectangle((-half, 0.30 - high), (half, 0.30 + high)), design.part_rgb)
    cap = design.part_rgb if design.part == "cap" else CORK
    wide = between((1.35, 2.0), design.part_size) if design.part == "cap" else 0.85
    pen.solid(rectangle((-wide * neck, 0.88), (wide * neck, 1.0)), cap)


def _box(pen: Pen, design: Design) -> None:
    half, tall, deep = between((0.34, 0.45), design.width), 0.62, between((0.10, 0.20), design.taper)
    pen.solid(
        np.array([[half, 0.0], [half + deep, 0.10], [half + deep, tall + 0.10], [half, tall]]), scaled(design.rgb, 0.7)
    )
    lid = design.part_rgb if design.part == "lid" else design.rgb
    high = between((0.12, 0.20), design.part_size) if design.part == "lid" else 0.0
    pen.patterned(rectangle((-half, 0.0), (half, tall)), design)
    top = np.array([[-half, tall], [half, tall], [half + deep, tall + 0.10], [-half + deep, tall + 0.10]])
    pen.solid(top, mixed(lid, WHITE, 0.25))
    if design.part == "lid":
        side = np.array(
            [[half, tall - high], [half + deep, tall + 0.10 - high], [half + deep, tall + 0.10], [half, tall]]
        )
        pen.solid(side, scaled(lid, 0.7))
        pen.solid(rectangle((-half, tall - high), (half, tall)), lid)
    if design.part == "ribbon":
        wide = between((0.05, 0.09), design.part_size)
        pen.solid(rectangle((-wide, 0.0), (wide, tall)), design.part_rgb)
        for side in (-1, 1):
            pen.solid(_disc(side * 0.14 + 0.5 * deep, tall + 0.14, 0.13, 0.08), design.part_rgb)


def _cup(pen: Pen, design: Design) -> None:
    top, tall = between((0.32, 0.42), design.width), 0.80
    bottom = top * between((0.62, 1.0), design.taper)
    if design.part == "handle":
        reach = between((0.16, 0.24), design.part_size)
        pen.line(
            arc(np.array([0.95 * bottom, 0.44]), (reach, 0.24), (-0.5 * np.pi, 0.5 * np.pi), 0.0, 20),
            design.part_rgb,
            0.085,
        )
    pen.solid(_disc(0.0, 0.02, bottom, 0.07), scaled(design.rgb, 0.9))
    pen.patterned(_tapered(bottom, top, (0.02, tall)), design)
    if design.part == "lid":
        up = between((0.07, 0.16), design.part_size)
        pen.solid(_tapered(1.08 * top, 0.9 * top, (tall - 0.04, tall + up)), design.part_rgb)
        pen.solid(_disc(0.0, tall + up + 0.04, 0.07, 0.05), design.part_rgb)
    else:
        pen.solid(_disc(0.0, tall, top, 0.10), scaled(design.rgb, 0.5))


def _hat(pen: Pen, design: Design) -> None:
    crown, brim = between((0.28, 0.36), design.width), between((0.44, 0.54), design.taper)
    pen.solid(_disc(0.0, 0.12, brim, 0.12), scaled(design.rgb, 0.86))
    pen.solid(_disc(0.0, 0.60, 0.84 * crown, 0.09), design.rgb)
    body = _tapered(crown, 0.84 * crown, (0.14, 0.60))
    pen.patterned(body, design)
    if design.part == "band":
        high = between((0.08, 0.16), design.part_size)
        pen.solid(clipped(rectangle((-1.0, 0.14), (1.0, 0.14 + high)), body), design.part_rgb)


def _lamp(pen: Pen, design: Design) -> None:
    bottom = between((0.30, 0.42), design.width)
    top = bottom * between((0.45, 0.85), design.taper)
    foot = design.part_rgb if design.part == "foot" else METAL
    wide = between((0.16, 0.27), design.part_size) if design.part == "foot" else 0.17
    pen.line(np.array([[0.0, 0.05], [0.0, 0.56]]), foot, 0.06)
    if design.part == "foot":
        pen.solid(_disc(0.0, 0.20, 0.62 * wide, 0.17), foot)
    pen.solid(_tapered(wide, 0.72 * wide, (0.0, 0.08)), foot)
    pen.patterned(_tapered(bottom, top, (0.52, 1.0)), design)


PAINTERS: dict[str, Callable[[Pen, Design], None]] = {
    "bag": _bag,
    "ball": _ball,
    "book": _book,
    "bottle": _bottle,
    "box": _box,
    "cup": _cup,
    "hat": _hat,
    "lamp": _lamp,
}
"""The painter of every family."""

FAMILY_PARTS: dict[str, tuple[str, ...]] = {
    "bag": ("strap", "handle"),
    "ball": ("none", "band"),
    "book": ("none", "label", "band"),
    "bottle": ("none", "label", "cap"),
    "box": ("none", "lid", "ribbon"),
    "cup": ("none", "handle", "lid"),
    "hat": ("none", "band"),
    "lamp": ("none", "foot"),
}
"""The parts that a family may have, all equally likely."""
