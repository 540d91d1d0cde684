"""Things of the world: who they are, and scenes of up to three of them with their truth.

A thing is one of eight families (`mcpipe.world.thing_shapes`) with lasting colours, pattern, part and proportions;
size, place, turn and light belong to a scene. What captions say is in `mcpipe.world.thing_captions`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from mcpipe.world.backgrounds import Background, backdrop
from mcpipe.world.canvas import OVERSAMPLING, Canvas
from mcpipe.world.colours import COLOURS, Colour, jittered, scaled
from mcpipe.world.scene import mask_box, sample_scene
from mcpipe.world.setting import Light
from mcpipe.world.thing_shapes import FAMILY_PARTS, PAINTERS, Design, Pen

FAMILIES = tuple(FAMILY_PARTS)
"""Kinds of things, all equally likely."""

PATTERNS = {"plain": 0.4, "striped": 0.2, "dotted": 0.2, "checked": 0.2}
"""Every pattern and how often it is drawn."""

PARTS = tuple(sorted({part for parts in FAMILY_PARTS.values() for part in parts}))
PROPORTIONS = ("width", "taper", "part_size", "pitch", "tilt")
"""Fields of `Design` that are drawn uniformly from [0, 1]."""

THING_JITTER = 13.0
"""Standard deviation of a thing's colours around the named ones, in 8-bit steps."""

LEAST_CONTRAST = 130.0
"""Distance of a pattern's and of a part's colour from the colour below, in 8-bit steps."""

COUNT_SHARES = {1: 0.2, 2: 0.6, 3: 0.2}
"""How often a scene has one, two or three things."""

SIZE_RANGES = {1: (0.45, 0.62), 2: (0.42, 0.56), 3: (0.30, 0.40)}
"""Unit of `Design` in frame heights, by the number of things; a thing is 0.7 to 1 of it tall."""

SPACING_RANGES = {1: (0.0, 0.0), 2: (0.40, 0.54), 3: (0.29, 0.34)}
"""Distance of neighbours' feet in frame heights; wide neighbours overlap."""

MIDDLE_RANGES = {1: (-0.14, 0.14), 2: (-0.03, 0.03), 3: (-0.03, 0.03)}
"""Offset of the group from the middle line of the frame."""

REACH = 0.5
"""Distance of a foot from the sides of the middle square, in the size of the thing; the widest reach beyond."""

FOOT_RANGE = (0.76, 0.95)
"""Height of the foot below the top of the frame; the nearest thing has the lowest one."""

TURN_RANGE = (-0.12, 0.12)
"""Turn about the foot, in radians."""

TABLE_SHARE = 0.5
"""Share of scenes with a table before the place."""

TABLE_TOP_RANGE = (0.58, 0.70)
"""Height of the table's far edge below the top of the frame."""

TABLES: tuple[Colour, ...] = ((158, 110, 72), (206, 172, 126), (104, 72, 54), (222, 218, 210), (120, 128, 136))
"""Colours of tables, all equally likely."""

TABLE_JITTER = 9.0
"""Standard deviation of a table's colour, in 8-bit steps."""

BLUR = 0.012
"""Standard deviation of the lack of focus behind things, which are nearer than people, in frame heights."""

SHADOW = 0.45
"""Loss of brightness below a thing."""

REFERENCE_SIZE_RANGE = (0.60, 0.74)
"""Unit of `Design` in the frame of a reference."""

REFERENCE_MIDDLE_RANGE = (-0.04, 0.04)
"""Offset of the foot from the middle of a reference."""


@dataclass(frozen=True)
class Thing:
    """The lasting traits of one thing."""

    family: str
    colour: str
    second_colour: str
    """Second colour of the pattern; drawn for plain things too, where it does not show."""
    part_colour: str
    """Drawn for things without a part too."""
    design: Design

    @property
    def phrase(self) -> str:
        """Colour, pattern and family: "striped red cup"; the name alone is `family`."""
        pattern = "" if self.design.pattern == "plain" else f"{self.design.pattern} "
        return f"{pattern}{self.colour} {self.family}"


@dataclass(frozen=True)
class ThingPlace:
    """A thing in a scene; lengths in frame heights, x from the middle line, the foot from the top."""

    thing: Thing
    x: float
    foot: float
    size: float
    turn: float


@dataclass(frozen=True)
class ThingScene:
    """Up to three things from left to right, in a place and, with a colour, on a table there."""

    places: tuple[ThingPlace, ...]
    background: Background
    light: Light
    table: Colour | None
    table_top: float

    def mirrored(self) -> "ThingScene":
        """The order of things, for captions of the mirror image; the places are not mirrored."""
        return replace(self, places=self.places[::-1])


@dataclass(frozen=True)
class ThingTruth:
    """Ground truth of a thing in an image; pixels, x to the right and y down."""

    thing: Thing
    mask: np.ndarray
    """(H, W) bool, what is visible."""
    box: np.ndarray | None
    """Bounds (4,) x0 y0 x1 y1 of the mask, the far ones exclusive; None if nothing is visible."""


@dataclass(frozen=True)
class ThingFrame:
    """An image of things (H, W, 3) uint8, with labels (H, W): 0 background, i + 1 thing i."""

    rgb: np.ndarray
    labels: np.ndarray
    things: tuple[ThingTruth, ...]


def sample_thing(rng: np.random.Generator, family: str | None = None) -> Thing:
    """A new thing of a family, or of any.

    Raises:
        ValueError: no such family.
    """
    if family is not None and family not in FAMILIES:
        raise ValueError(f"no family {family!r} of things; there are {', '.join(FAMILIES)}")
    family = str(rng.choice(FAMILIES)) if family is None else family
    colour, rgb = _sample_colour(rng, ())
    second_colour, second_rgb = _sample_colour(rng, (rgb,))
    part_colour, part_rgb = _sample_colour(rng, (rgb,))
    design = Design(
        rgb=rgb,
        pattern=str(rng.choice(list(PATTERNS), p=list(PATTERNS.values()))),
        second_rgb=second_rgb,
        part=str(rng.choice(FAMILY_PARTS[family])),
        part_rgb=part_rgb,
        **{name: float(rng.uniform()) for name in PROPORTIONS},
    )
    return Thing(family, colour, second_colour, part_colour, design)


def sample_things(rng: np.random.Generator, count: int) -> list[Thing]:
    """New things of as many families."""
    return [sample_thing(rng, str(family)) for family in rng.choice(FAMILIES, count, replace=False)]


def _sample_colour(rng: np.random.Generator, against: Sequence[Colour]) -> tuple[str, Colour]:
    """A named colour and one near it, nearer to it than to any other name and far from those below it."""
    while True:
        name = str(rng.choice(list(COLOURS)))
        rgb = jittered(COLOURS[name], THING_JITTER, rng)
        nearest = min(COLOURS, key=lambda other: _distance(COLOURS[other], rgb))
        if nearest == name and all(_distance(rgb, other) >= LEAST_CONTRAST for other in against):
            return name, rgb


def _distance(first: Colour, second: Colour) -> float:
    return float(np.linalg.norm(np.subtract(first, second)))


def sample_thing_scene(rng: np.random.Generator, things: Sequence[Thing]) -> ThingScene:
    """A scene of one to three things from left to right.

    Raises:
        ValueError: there is another number of things.
    """
    count = len(things)
    if count not in COUNT_SHARES:
        raise ValueError(f"a scene holds one to three things, not {count}")
    stage = sample_scene(rng, ())
    spacing = float(rng.uniform(*SPACING_RANGES[count]))
    middle = float(rng.uniform(*MIDDLE_RANGES[count]))
    sizes = [float(rng.uniform(*SIZE_RANGES[count])) for _ in things]
    places = tuple(
        ThingPlace(
            thing=thing,
            x=float(np.clip(middle + spacing * (index - 0.5 * (count - 1)), REACH * size - 0.5, 0.5 - REACH * size)),
            foot=float(rng.uniform(*FOOT_RANGE)),
            size=size,
            turn=float(rng.uniform(*TURN_RANGE)),
        )
        for index, (thing, size) in enumerate(zip(things, sizes, strict=True))
    )
    table = jittered(TABLES[int(rng.integers(len(TABLES)))], TABLE_JITTER, rng) if rng.random() < TABLE_SHARE else None
    return ThingScene(places, stage.background, stage.light, table, float(rng.uniform(*TABLE_TOP_RANGE)))


def render_things(scene: ThingScene, width: int, height: int) -> ThingFrame:
    """The image of a scene, ``width`` x ``height`` pixels."""
    canvas = Canvas(width, height, _shadowed(_behind(scene, width, height), scene.places))
    return _painted(canvas, scene.places, scene.light)


def reference(thing: Thing, rng: np.random.Generator, size: int, *, plain: bool) -> ThingFrame:
    """A thing alone and large in a square of ``size`` pixels, on white if ``plain``, else in a place of its own."""
    scene = sample_thing_scene(rng, [thing])
    unit = float(rng.uniform(*REFERENCE_SIZE_RANGE))
    place = replace(scene.places[0], x=float(rng.uniform(*REFERENCE_MIDDLE_RANGE)), foot=0.5 + 0.45 * unit, size=unit)
    if not plain:
        return render_things(replace(scene, places=(place,)), size, size)
    side = size * OVERSAMPLING
    canvas = Canvas(size, size, np.full((side, side, 3), 255, np.uint8))
    return _painted(canvas, (place,), replace(scene.light, gain=1.0, tint=(1.0, 1.0, 1.0), noise=0.0))


def _behind(scene: ThingScene, width: int, height: int) -> np.ndarray:
    """Place and table as the content of a canvas."""
    blurred = cv2.GaussianBlur(backdrop(scene.background, width, height), (0, 0), OVERSAMPLING * BLUR * height)
    if scene.table is not None:
        top = round(scene.table_top * len(blurred))
        shades = np.linspace(1.06, 0.80, len(blurred) - top)
        blurred[top:] = np.array([scaled(scene.table, float(shade)) for shade in shades]).clip(0, 255)[:, None]
        blurred[top : top + max(1, len(blurred) // 120)] = scaled(scene.table, 0.7)
    return blurred


def _shadowed(content: np.ndarray, places: Sequence[ThingPlace]) -> np.ndarray:
    """The content of a canvas, darker below things."""
    height, width = content.shape[:2]
    shadow = np.zeros((height, width), np.float32)
    for place in places:
        at = round(0.5 * width + place.x * height), round((place.foot - 0.005) * height)
        axes = round(0.48 * place.size * height), round(0.07 * place.size * height)
        cv2.ellipse(shadow, at, axes, 0, 0, 360, (SHADOW,), -1, cv2.LINE_AA)
    soft = cv2.GaussianBlur(shadow, (0, 0), 0.02 * height)
    return np.rint(content * (1 - soft[..., None])).astype(np.uint8)


def _painted(canvas: Canvas, places: Sequence[ThingPlace], light: Light) -> ThingFrame:
    for index in sorted(range(len(places)), key=lambda index: places[index].foot):
        place = places[index]
        foot = 0.5 * canvas.width + place.x * canvas.height, place.foot * canvas.height
        pen = Pen(canvas, foot, place.size * canvas.height, place.turn, light.side)
        pen.label = index + 1
        PAINTERS[place.thing.family](pen, place.thing.design)
    rgb, labels = canvas.picture().astype(np.float32) * (light.gain * np.array(light.tint, np.float32)), canvas.labels()
    rgb += light.noise * np.random.default_rng(light.seed).standard_normal(rgb.shape, dtype=np.float32)
    masks = [labels == index + 1 for index in range(len(places))]
    things = tuple(ThingTruth(place.thing, mask, mask_box(mask)) for place, mask in zip(places, masks, strict=True))
    return ThingFrame(np.rint(rgb).clip(0, 255).astype(np.uint8), labels, things)
