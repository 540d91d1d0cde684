"""Places behind the people, softly out of focus."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from mcpipe.world.canvas import Canvas, Points, ellipse, enlarged
from mcpipe.world.colours import Colour, jittered, mixed, scaled
from mcpipe.world.traits import SEEDS

PLACES = {
    "park": "in a park",
    "beach": "on a beach",
    "street": "on a street",
    "room": "in a room",
    "studio": "in a studio",
}
"""Every place with its words in a caption."""

JITTER = 9.0
"""Standard deviation of the colours of a place around their usual ones, in 8-bit steps."""

LOOSE_JITTER = 18.0
"""The same of leaves, walls of houses and screens."""

WIDE_JITTER = 36.0
"""The same of parasols and sofas."""

PICTURE_JITTER = 40.0
"""The same of images on a wall."""

HORIZON_RANGE = (0.52, 0.66)
"""Height of the line between wall or sky and ground, in frame heights from the top."""

BLUR = 0.006
"""Standard deviation of the lack of focus, in frame heights."""

WALLS: tuple[Colour, ...] = ((214, 196, 168), (168, 190, 200), (196, 172, 186), (184, 200, 170), (206, 178, 150))
"""Colours of the walls of rooms, all equally likely."""

SCREENS: tuple[Colour, ...] = ((120, 140, 168), (170, 150, 140), (134, 156, 134), (150, 130, 164), (176, 170, 150))
"""Colours of the screens of studios, all equally likely."""

HOUSES: tuple[Colour, Colour] = ((176, 124, 100), (150, 156, 168))
"""Ends of the scale of house walls, drawn uniformly."""

LIT_SHARE = 0.3
"""Share of houses with light in the windows."""

NUM_CLOUDS = (1, 3)
"""In the sky of parks and beaches, the fewest and the most."""

NUM_TREES = (3, 5)
"""In a park."""

NUM_PARASOLS = (1, 2)
"""On a beach."""

WIDE_RANGES: dict[str, tuple[float, float]] = {
    "anywhere": (0.0, 1.0),
    "sun": (0.05, 0.95),
    "window": (0.0, 0.35),
    "picture": (0.6, 0.85),
    "sofa": (-0.2, 0.5),
    "lamp": (0.25, 0.75),
}
"""Where things stand from left to right, in frame widths; clouds, hills, trees and parasols anywhere."""

SIZE_RANGES: dict[str, tuple[float, float]] = {
    "cloud_drop": (0.04, 0.24),
    "puff_shift": (-0.015, 0.015),
    "hill_width": (0.3, 0.6),
    "hill_height": (0.10, 0.24),
    "tree_drop": (0.0, 0.08),
    "tree_height": (0.22, 0.46),
    "sun_drop": (0.08, 0.2),
    "parasol_height": (0.22, 0.34),
    "house_start": (0.0, 0.1),
    "house_width": (0.22, 0.40),
    "house_top": (-0.05, 0.26),
}
"""Heights, widths and distances of things, in frame heights."""


@dataclass(frozen=True)
class Background:
    """A place and the seed of its details."""

    place: str
    seed: int


def sample_background(rng: np.random.Generator) -> Background:
    """Any place with any details."""
    return Background(place=str(rng.choice(list(PLACES))), seed=int(rng.integers(SEEDS)))


@lru_cache(maxsize=4)
def backdrop(background: Background, width: int, height: int) -> np.ndarray:
    """A place without people as the content of a canvas of ``width`` x ``height`` pixels; not to be written to."""
    rng = np.random.default_rng(background.seed)
    canvas = Canvas(width, height, labelled=False)
    draw = {"park": _park, "beach": _beach, "street": _street, "room": _room, "studio": _studio}[background.place]
    draw(canvas, rng)
    rgb = enlarged(cv2.GaussianBlur(canvas.picture(), (0, 0), max(BLUR * height, 0.3)))
    rgb.setflags(write=False)
    return rgb


def _sheet(canvas: Canvas, top: float, bottom: float, ends: tuple[Colour, Colour]) -> None:
    """A band across the whole image between two heights in pixels, shaded from above to below."""
    canvas.shade(_rectangle(-1.0, top, canvas.width + 1.0, bottom), ends[0], ends[1], (0.0, 1.0))


def _rectangle(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _horizon(canvas: Canvas, rng: np.random.Generator) -> float:
    return canvas.height * float(rng.uniform(*HORIZON_RANGE))


def _number(span: tuple[int, int], rng: np.random.Generator) -> int:
    return int(rng.integers(*span, endpoint=True))


def _across(canvas: Canvas, rng: np.random.Generator, what: str) -> float:
    return float(rng.uniform(*WIDE_RANGES[what])) * canvas.width


def _size(canvas: Canvas, rng: np.random.Generator, what: str) -> float:
    return float(rng.uniform(*SIZE_RANGES[what])) * canvas.height


def _clouds(canvas: Canvas, rng: np.random.Generator) -> None:
    size = canvas.height
    for _ in range(_number(NUM_CLOUDS, rng)):
        at = np.array([_across(canvas, rng, "anywhere"), _size(canvas, rng, "cloud_drop")])
        for shift in (-0.10, 0.0, 0.09):
            puff = at + np.array([shift * size, _size(canvas, rng, "puff_shift")])
            canvas.fill(ellipse(puff, (0.10 * size, 0.045 * size)), (246, 249, 252))


def _park(canvas: Canvas, rng: np.random.Generator) -> None:
    size, horizon = canvas.height, _horizon(canvas, rng)
    grass = jittered((104, 170, 82), JITTER, rng)
    _sheet(canvas, -1, horizon, (jittered((130, 188, 240), JITTER, rng), (220, 238, 250)))
    _clouds(canvas, rng)
    for _ in range(3):
        at = np.array([_across(canvas, rng, "anywhere"), horizon + 0.06 * size])
        radii = _size(canvas, rng, "hill_width"), _size(canvas, rng, "hill_height")
        canvas.fill(ellipse(at, radii), scaled(grass, 0.82))
    _sheet(canvas, horizon, size + 1, (scaled(grass, 1.1), scaled(grass, 0.7)))
    for _ in range(_number(NUM_TREES, rng)):
        _tree(canvas, rng, horizon + _size(canvas, rng, "tree_drop"))


def _tree(canvas: Canvas, rng: np.random.Generator, foot: float) -> None:
    size, x = canvas.height, _across(canvas, rng, "anywhere")
    tall = _size(canvas, rng, "tree_height")
    leaf = jittered((64, 136, 66), LOOSE_JITTER, rng)
    canvas.fill(_rectangle(x - 0.018 * size, foot - 0.6 * tall, x + 0.018 * size, foot), (104, 74, 48))
    for shift, up, share in ((-0.24, 0.62, 0.36), (0.24, 0.62, 0.36), (0.0, 0.85, 0.44)):
        at = np.array([x + shift * tall, foot - up * tall])
        canvas.shade(ellipse(at, (share * tall, share * tall)), scaled(leaf, 1.2), scaled(leaf, 0.75), (0.3, 1.0))


def _beach(canvas: Canvas, rng: np.random.Generator) -> None:
    size, horizon = canvas.height, _horizon(canvas, rng)
    sand = jittered((238, 214, 160), JITTER, rng)
    _sheet(canvas, -1, horizon, (jittered((110, 186, 240), JITTER, rng), (226, 242, 250)))
    sun = np.array([_across(canvas, rng, "sun"), _size(canvas, rng, "sun_drop")])
    canvas.fill(ellipse(sun, (0.07 * size, 0.07 * size)), (255, 240, 176))
    _clouds(canvas, rng)
    sea = jittered((44, 138, 180), JITTER, rng)
    _sheet(canvas, horizon - 0.10 * size, horizon + 0.02 * size, (scaled(sea, 0.9), scaled(sea, 1.25)))
    _sheet(canvas, horizon, size + 1, (scaled(sand, 1.05), scaled(sand, 0.82)))
    for _ in range(_number(NUM_PARASOLS, rng)):
        x, tall = _across(canvas, rng, "anywhere"), _size(canvas, rng, "parasol_height")
        canvas.fill(_rectangle(x - 2, horizon - tall, x + 2, horizon + 0.1 * size), (150, 120, 90))
        shade = np.concatenate(
            [ellipse(np.array([x, horizon - tall]), (0.22 * size, 0.12 * size))[14:], [[x, horizon - tall]]]
        )
        canvas.fill(shade, jittered((226, 96, 84), WIDE_JITTER, rng))


def _street(canvas: Canvas, rng: np.random.Generator) -> None:
    size, horizon = canvas.height, _horizon(canvas, rng)
    _sheet(canvas, -1, horizon, (jittered((168, 196, 222), JITTER, rng), (226, 230, 234)))
    x = -_size(canvas, rng, "house_start")
    while x < canvas.width:
        wide, top = _size(canvas, rng, "house_width"), _size(canvas, rng, "house_top")
        wall = jittered(mixed(*HOUSES, rng.random()), LOOSE_JITTER, rng)
        canvas.shade(_rectangle(x, top, x + wide, horizon), scaled(wall, 1.06), scaled(wall, 0.86), (0.0, 1.0))
        _windows(canvas, rng, (x, top, x + wide, horizon))
        x += wide
    road = jittered((112, 112, 120), JITTER, rng)
    _sheet(canvas, horizon, horizon + 0.06 * size, ((182, 178, 172), (164, 160, 156)))
    _sheet(canvas, horizon + 0.06 * size, size + 1, (scaled(road, 1.05), scaled(road, 0.8)))


def _windows(canvas: Canvas, rng: np.random.Generator, wall: tuple[float, float, float, float]) -> None:
    size, (left, top, right, bottom) = canvas.height, wall
    pane = mixed((90, 116, 146), (250, 226, 150), float(rng.random() < LIT_SHARE))
    step = 0.12 * size
    for y in np.arange(top + 0.05 * size, bottom - 0.1 * size, step):
        for x in np.arange(left + 0.04 * size, right - 0.06 * size, 0.8 * step):
            canvas.fill(_rectangle(x, y, x + 0.05 * size, y + 0.07 * size), pane)


def _room(canvas: Canvas, rng: np.random.Generator) -> None:
    size, horizon = canvas.height, _horizon(canvas, rng) + 0.14 * canvas.height
    wall = jittered(WALLS[int(rng.integers(len(WALLS)))], JITTER, rng)
    floor = jittered((150, 108, 76), JITTER, rng)
    _sheet(canvas, -1, horizon, (scaled(wall, 1.05), scaled(wall, 0.88)))
    _sheet(canvas, horizon, size + 1, (floor, scaled(floor, 0.75)))
    _sheet(canvas, horizon - 0.02 * size, horizon, ((240, 236, 228), (220, 214, 206)))
    x = _across(canvas, rng, "window")
    pane = (x, 0.08 * size, x + 0.34 * size, 0.46 * size)
    canvas.fill(_rectangle(pane[0] - 5, pane[1] - 5, pane[2] + 5, pane[3] + 5), (244, 240, 232))
    canvas.shade(_rectangle(*pane), (150, 200, 244), (222, 240, 250), (0.0, 1.0))
    canvas.fill(_rectangle((pane[0] + pane[2]) / 2 - 2, pane[1], (pane[0] + pane[2]) / 2 + 2, pane[3]), (244, 240, 232))
    at = _across(canvas, rng, "picture")
    canvas.fill(_rectangle(at, 0.10 * size, at + 0.24 * size, 0.32 * size), (92, 66, 50))
    canvas.fill(
        _rectangle(at + 5, 0.10 * size + 5, at + 0.24 * size - 5, 0.32 * size - 5),
        jittered((180, 150, 130), PICTURE_JITTER, rng),
    )
    sofa = jittered((120, 110, 140), WIDE_JITTER, rng)
    left = _across(canvas, rng, "sofa")
    canvas.shade(
        _rectangle(left, horizon - 0.16 * size, left + 0.8 * size, horizon + 0.1 * size),
        sofa,
        scaled(sofa, 0.7),
        (0, 1),
    )


def _studio(canvas: Canvas, rng: np.random.Generator) -> None:
    size = canvas.height
    screen = jittered(SCREENS[int(rng.integers(len(SCREENS)))], LOOSE_JITTER, rng)
    _sheet(canvas, -1, size + 1, (scaled(screen, 0.92), scaled(screen, 0.66)))
    at = np.array([_across(canvas, rng, "lamp"), 0.42 * size])
    for share in np.linspace(0.75, 0.25, 9):
        glow = mixed(scaled(screen, 0.86), scaled(screen, 1.18), float((0.75 - share) / 0.5))
        canvas.fill(ellipse(at, (1.2 * share * size, share * size), 0.0, 40), glow)
