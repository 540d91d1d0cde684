"""An anti-aliased canvas that paints colours and, optionally, labels.

Coordinates are in pixels of the final image, x to the right and y down, with the first pixel spanning [0, 1).
"""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from mcpipe.world.colours import Colour

OVERSAMPLING = 2
"""Side of the square of painted pixels averaged into one; lines are smoothed on top of it."""

SUBPIXEL_BITS = 4

Points = np.ndarray
"""Vertices, (n, 2)."""

LARGE_PATCH = 10_000
"""Pixels from which it is faster to blend only the smoothed edge of a shape and to copy what lies inside."""

_COVERED = np.arange(256, dtype=np.float32) / np.float32(255)
_UNCOVERED = np.float32(1) - _COVERED
"""Weights of a painted pixel and of the earlier value, by coverage in 8-bit steps."""


class Canvas:
    """An image in the making, with the label of the front-most shape at every pixel."""

    def __init__(self, width: int, height: int, backdrop: np.ndarray | None = None, *, labelled: bool = True) -> None:
        """A canvas of the final size in pixels, black or a copy of a painted canvas of that size.

        ``backdrop`` is (H * OVERSAMPLING, W * OVERSAMPLING, 3) uint8 (`enlarged`) and stays as it is. Without
        ``labelled`` only colours are painted, which takes about a fifth less time.
        """
        self.width, self.height = width, height
        size = (height * OVERSAMPLING, width * OVERSAMPLING)
        self._labels = np.zeros(size, np.uint8) if labelled else None
        self._rgb = np.zeros((*size, 3), np.uint8) if backdrop is None else backdrop.copy()
        self._scratch = _Scratch(size[0] * size[1])

    def fill(self, points: Points, colour: Colour, label: int | None = None) -> None:
        """Paint a polygon in one colour."""
        vertices = [_fixed_point(points)]
        cv2.fillPoly(self._rgb, vertices, colour, cv2.LINE_AA, SUBPIXEL_BITS)
        self._fill_label(vertices, label)

    def shade(
        self, points: Points, lit: Colour, dim: Colour, towards: Sequence[float], label: int | None = None
    ) -> None:
        """Paint a polygon whose colour runs from ``lit`` to ``dim`` across it, in the direction ``towards``."""
        vertices = _fixed_point(points)
        left, top, right, bottom = _bounds(vertices)
        patch = self._rgb[top:bottom, left:right]
        if patch.size == 0:
            return
        moved = vertices - np.array([left << SUBPIXEL_BITS, top << SUBPIXEL_BITS], np.int32)
        coverage = self._scratch.coverage(patch.shape[:2])
        cv2.fillPoly(coverage, [moved], (255,), cv2.LINE_AA, SUBPIXEL_BITS)
        painted = self._scratch.gradient(moved / float(1 << SUBPIXEL_BITS), patch.shape[:2], (lit, dim), towards)
        _blend(patch, painted, coverage)
        self._fill_label([vertices], label)

    def stroke(
        self, points: Points, colour: Colour, thickness: float, *, closed: bool = False, label: int | None = None
    ) -> None:
        """Paint a line of some thickness in final pixels along the points."""
        vertices = [_fixed_point(points)]
        width = max(1, round(thickness * OVERSAMPLING))
        cv2.polylines(self._rgb, vertices, closed, colour, width, cv2.LINE_AA, SUBPIXEL_BITS)
        if label is not None and self._labels is not None:
            cv2.polylines(self._labels, vertices, closed, (label,), width, cv2.LINE_8, SUBPIXEL_BITS)

    def picture(self) -> np.ndarray:
        """The image (H, W, 3) uint8 at the final size."""
        return cv2.resize(self._rgb, (self.width, self.height), interpolation=cv2.INTER_AREA)

    def labels(self) -> np.ndarray:
        """The labels (H, W) uint8 at the final size.

        Raises:
            ValueError: the canvas has no labels.
        """
        if self._labels is None:
            raise ValueError("a canvas without labels has none to show")
        offset = OVERSAMPLING // 2
        return np.ascontiguousarray(self._labels[offset::OVERSAMPLING, offset::OVERSAMPLING])

    def _fill_label(self, vertices: list[np.ndarray], label: int | None) -> None:
        if label is not None and self._labels is not None:
            cv2.fillPoly(self._labels, vertices, (label,), cv2.LINE_8, SUBPIXEL_BITS)


def enlarged(picture: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 as the content of a canvas that paints on it."""
    size = picture.shape[1] * OVERSAMPLING, picture.shape[0] * OVERSAMPLING
    return cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST)


def ellipse(centre: Points, radii: tuple[float, float], angle: float = 0.0, points: int = 28) -> Points:
    """The outline of an ellipse, its axes turned clockwise by ``angle`` radians."""
    return arc(centre, radii, (0.0, 2.0 * np.pi), angle, points)


def arc(
    centre: Points, radii: tuple[float, float], span: tuple[float, float], angle: float = 0.0, points: int = 28
) -> Points:
    """Part of an ellipse's outline between two angles in radians, clockwise from the right."""
    return centre + rotated(_unit_arc(*span, points) * radii, angle)


def rotated(points: Points, angle: float) -> Points:
    """Points turned clockwise about the origin by ``angle`` radians."""
    return points @ _turn(angle) if angle else points


@lru_cache(maxsize=256)
def steps(low: float, high: float, total: int) -> np.ndarray:
    """Evenly spaced numbers (total,) from ``low`` to ``high``, both included; not to be written to."""
    return _kept(np.linspace(low, high, total))


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
    t, t_2, t_3 = _powers(points)
    line = 0.5 * (
        2 * here
        + (there - before) * t
        + (2 * before - 5 * here + 4 * there - after) * t_2
        + (3 * here - before - 3 * there + after) * t_3
    )
    return line.reshape(-1, 2)


@lru_cache(maxsize=64)
def _unit_arc(low: float, high: float, points: int) -> Points:
    turn = np.linspace(low, high, points)
    return _kept(np.stack([np.cos(turn), np.sin(turn)], axis=1))


@lru_cache(maxsize=64)
def _turn(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return _kept(np.array([[cosine, sine], [-sine, cosine]]))


@lru_cache(maxsize=16)
def _powers(points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``points`` places on [0, 1], their squares and their cubes, each (1, points, 1)."""
    t = np.linspace(0.0, 1.0, points)[None, :, None]
    return _kept(t), _kept(t**2), _kept(t**3)


def _kept(array: np.ndarray) -> np.ndarray:
    """An array that is shared, and therefore not to be written to."""
    array.setflags(write=False)
    return array


def _fixed_point(points: Points) -> np.ndarray:
    # In units of a painted pixel's fraction, counted from the middle of the first painted pixel.
    unit = float(OVERSAMPLING << SUBPIXEL_BITS)
    return np.rint(points * unit - 0.5 * (1 << SUBPIXEL_BITS)).astype(np.int32)


def _bounds(vertices: np.ndarray) -> tuple[int, int, int, int]:
    """Painted pixels left, top, right, bottom that hold a polygon with its smoothed edge, the far ones exclusive."""
    (left, top), (right, bottom) = vertices.min(axis=0).tolist(), vertices.max(axis=0).tolist()
    return (
        max((left >> SUBPIXEL_BITS) - 1, 0),
        max((top >> SUBPIXEL_BITS) - 1, 0),
        max((right >> SUBPIXEL_BITS) + 3, 0),
        max((bottom >> SUBPIXEL_BITS) + 3, 0),
    )


class _Scratch:
    """Memory reused for one shape after the other; allocating a new array each time would cost more than filling it."""

    def __init__(self, pixels: int) -> None:
        self._place = np.empty(pixels, np.float32)
        self._step, self._coverage = np.empty(pixels, np.uint8), np.empty(pixels, np.uint8)
        self._painted = np.empty(pixels * 3, np.uint8)

    def coverage(self, shape: tuple[int, int]) -> np.ndarray:
        """Zeros (H, W) uint8."""
        coverage = self._coverage[: shape[0] * shape[1]].reshape(shape)
        coverage.fill(0)
        return coverage

    def gradient(
        self, vertices: Points, shape: tuple[int, int], ends: tuple[Colour, Colour], towards: Sequence[float]
    ) -> np.ndarray:
        """A patch (H, W, 3) uint8 whose colour runs between ``ends`` over the extent of the vertices."""
        pixels = shape[0] * shape[1]
        direction, precise = _direction(*towards)
        along = (vertices @ precise).tolist()
        low, high = min(along), max(along)
        step = np.float32(255.0 / max(high - low, 1e-3))
        columns = _count(shape[1]) * direction[0]
        columns -= low
        columns *= step
        rows = _count(shape[0]) * direction[1] * step
        place = np.add(columns[None], rows[:, None], out=self._place[:pixels].reshape(shape))
        steps_of_colour = np.clip(place, 0, 255, out=self._step[:pixels].reshape(shape), casting="unsafe")
        painted = self._painted[: pixels * 3].reshape((*shape, 3))
        return cv2.applyColorMap(steps_of_colour, _colour_table(*ends), dst=painted)


def _blend(patch: np.ndarray, painted: np.ndarray, coverage: np.ndarray) -> None:
    """Put painted pixels (H, W, 3) on a patch, by their coverage in 8-bit steps (H, W)."""
    if coverage.size < LARGE_PATCH:
        cv2.blendLinear(patch, painted, cv2.LUT(coverage, _UNCOVERED), cv2.LUT(coverage, _COVERED), dst=patch)
        return
    edge = np.flatnonzero(coverage - np.uint8(1) < 254)
    cv2.copyTo(painted, cv2.inRange(coverage, (255,), (255,)), patch)
    if len(edge):
        places, covered = np.divmod(edge, coverage.shape[1]), coverage.reshape(-1).take(edge)
        patch[places] = cv2.blendLinear(
            patch[places][:, None],
            painted.reshape(-1, 3).take(edge, axis=0)[:, None],
            _UNCOVERED[covered][:, None],
            _COVERED[covered][:, None],
        )[:, 0]


@lru_cache(maxsize=64)
def _direction(x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
    """A direction (2,) in single precision, and the same numbers in double precision."""
    direction = np.array([x, y], dtype=np.float32)
    return _kept(direction), _kept(direction.astype(np.float64))


@lru_cache(maxsize=1024)
def _count(total: int) -> np.ndarray:
    return _kept(np.arange(total, dtype=np.float32))


@lru_cache(maxsize=1024)
def _colour_table(first: Colour, last: Colour) -> np.ndarray:
    """256 colours (256, 1, 3) uint8 from one to another."""
    return _kept(np.linspace(first, last, 256).round().clip(0, 255).astype(np.uint8)[:, None])
