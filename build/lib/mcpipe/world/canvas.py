"""An anti-aliased canvas that paints colours and labels together.

Coordinates are in pixels of the final picture, x to the right and y down, with the first pixel spanning [0, 1).
"""

from collections.abc import Sequence

import cv2
import numpy as np

from mcpipe.world.colours import Colour

OVERSAMPLING = 2
"""Side of the square of painted pixels averaged into one; lines are smoothed on top of it."""

SUBPIXEL_BITS = 4

Points = np.ndarray
"""Vertices, (n, 2)."""


class Canvas:
    """A picture in the making, with the label of the front-most shape at every pixel."""

    def __init__(self, width: int, height: int, backdrop: np.ndarray | None = None) -> None:
        """A canvas of the final size in pixels, black or with a picture (H, W, 3) uint8 of that size on it."""
        self.width, self.height = width, height
        size = (width * OVERSAMPLING, height * OVERSAMPLING)
        self._labels = np.zeros(size[::-1], np.uint8)
        if backdrop is None:
            self._rgb = np.zeros((*self._labels.shape, 3), np.uint8)
        else:
            self._rgb = cv2.resize(backdrop, size, interpolation=cv2.INTER_NEAREST)

    def fill(self, points: Points, colour: Colour, label: int | None = None) -> None:
        """Paint a polygon in one colour."""
        vertices = [_fixed_point(points)]
        cv2.fillPoly(self._rgb, vertices, colour, cv2.LINE_AA, SUBPIXEL_BITS)
        if label is not None:
            cv2.fillPoly(self._labels, vertices, (label,), cv2.LINE_8, SUBPIXEL_BITS)

    def shade(
        self, points: Points, lit: Colour, dim: Colour, towards: Sequence[float], label: int | None = None
    ) -> None:
        """Paint a polygon whose colour runs from ``lit`` to ``dim`` across it, in the direction ``towards``."""
        vertices = _fixed_point(points)
        left, top = np.maximum((vertices.min(axis=0) >> SUBPIXEL_BITS) - 1, 0)
        right, bottom = (vertices.max(axis=0) >> SUBPIXEL_BITS) + 3
        patch = self._rgb[top:bottom, left:right]
        if patch.size == 0:
            return
        coverage = np.zeros(patch.shape[:2], np.uint8)
        moved = [vertices - (np.array([left, top]) << SUBPIXEL_BITS).astype(np.int32)]
        cv2.fillPoly(coverage, moved, (255,), cv2.LINE_AA, SUBPIXEL_BITS)
        weight = coverage.astype(np.float32) / np.float32(255)
        painted = _gradient(moved[0] / float(1 << SUBPIXEL_BITS), patch.shape[:2], (lit, dim), towards)
        patch[:] = cv2.blendLinear(patch, painted, np.float32(1) - weight, weight)
        if label is not None:
            cv2.fillPoly(self._labels, [vertices], (label,), cv2.LINE_8, SUBPIXEL_BITS)

    def stroke(
        self, points: Points, colour: Colour, thickness: float, *, closed: bool = False, label: int | None = None
    ) -> None:
        """Paint a line of some thickness in final pixels along the points."""
        vertices = [_fixed_point(points)]
        width = max(1, round(thickness * OVERSAMPLING))
        cv2.polylines(self._rgb, vertices, closed, colour, width, cv2.LINE_AA, SUBPIXEL_BITS)
        if label is not None:
            cv2.polylines(self._labels, vertices, closed, (label,), width, cv2.LINE_8, SUBPIXEL_BITS)

    def finished(self) -> tuple[np.ndarray, np.ndarray]:
        """The picture (H, W, 3) and its labels (H, W), both uint8, at the final size."""
        rgb = cv2.resize(self._rgb, (self.width, self.height), interpolation=cv2.INTER_AREA)
        offset = OVERSAMPLING // 2
        return rgb, np.ascontiguousarray(self._labels[offset::OVERSAMPLING, offset::OVERSAMPLING])


def ellipse(centre: Points, radii: tuple[float, float], angle: float = 0.0, points: int = 28) -> Points:
    """The outline of an ellipse, its axes turned clockwise by ``angle`` radians."""
    return arc(centre, radii, (0.0, 2.0 * np.pi), angle, points)


def arc(
    centre: Points, radii: tuple[float, float], span: tuple[float, float], angle: float = 0.0, points: int = 28
) -> Points:
    """Part of an ellipse's outline between two angles in radians, clockwise from the right."""
    turn = np.linspace(*span, points)
    return np.asarray(centre) + rotated(np.stack([radii[0] * np.cos(turn), radii[1] * np.sin(turn)], axis=1), angle)


def rotated(points: Points, angle: float) -> Points:
    """Points turned clockwise about the origin by ``angle`` radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return points @ np.array([[cosine, sine], [-sine, cosine]])


def capsule(start: Points, end: Points, radii: tuple[float, float]) -> Points:
    """The outline of a limb: two half discs joined by straight sides."""
    along = np.asarray(end) - np.asarray(start)
    angle = float(np.arctan2(along[1], along[0]))
    back = arc(start, (radii[0], radii[0]), (0.5 * np.pi, 1.5 * np.pi), angle, 10)
    front = arc(end, (radii[1], radii[1]), (-0.5 * np.pi, 0.5 * np.pi), angle, 10)
    return np.concatenate([back, front])


def curve(*anchors: Points, points: int = 8) -> Points:
    """A smooth line through all anchors (Catmull-Rom), ``points`` to a stretch."""
    way = np.asarray(anchors, dtype=float)
    way = np.concatenate([[2 * way[0] - way[1]], way, [2 * way[-1] - way[-2]]])
    before, here, there, after = (way[shift : len(way) - 3 + shift, None] for shift in range(4))
    t = np.linspace(0.0, 1.0, points)[None, :, None]
    line = 0.5 * (
        2 * here
        + (there - before) * t
        + (2 * before - 5 * here + 4 * there - after) * t**2
        + (3 * here - before - 3 * there + after) * t**3
    )
    return line.reshape(-1, 2)


def _fixed_point(points: Points) -> np.ndarray:
    return np.round((np.asarray(points) * OVERSAMPLING - 0.5) * (1 << SUBPIXEL_BITS)).astype(np.int32)


def _gradient(
    vertices: Points, shape: tuple[int, int], ends: tuple[Colour, Colour], towards: Sequence[float]
) -> np.ndarray:
    """A patch (H, W, 3) uint8 whose colour runs between ``ends`` over the extent of the vertices."""
    direction = np.asarray(towards, dtype=np.float32)
    along = vertices @ direction
    low, high = float(along.min()), float(along.max())
    steps = np.float32(255.0 / max(high - low, 1e-3))
    columns = (np.arange(shape[1], dtype=np.float32) * direction[0] - low) * steps
    rows = np.arange(shape[0], dtype=np.float32) * direction[1] * steps
    place = np.clip(columns[None] + rows[:, None], 0, 255).astype(np.uint8)
    table = np.linspace(ends[0], ends[1], 256).round().clip(0, 255).astype(np.uint8)
    return cv2.applyColorMap(place, table[:, None])
