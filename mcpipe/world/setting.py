"""Scenes before the camera: people with clothes, poses and a place, drawn from documented ranges.

A two-shot as on television: half bodies side by side, with heads of about 0.3 of the frame's height (`FAR`) or of up
to half of it (`CLOSE`). Lengths of a scene are in frame heights, from the top and from the middle line of the frame.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mcpipe.world.backgrounds import Background, sample_background
from mcpipe.world.body import SIDES
from mcpipe.world.outfits import sample_outfit
from mcpipe.world.traits import SEEDS, Identity, Outfit

HEAD_HEIGHT_RANGES = {0: (0.30, 0.36), 1: (0.30, 0.36), 2: (0.285, 0.32), 3: (0.28, 0.30)}
"""Chin to crown, by the number of people."""

SPACING_RANGES = {0: (0.0, 0.0), 1: (0.0, 0.0), 2: (2.50, 2.75), 3: (2.45, 2.7)}
"""Distance between neighbours' heads in head radii; neighbours overlap a little at the shoulders."""

HEAD_SHARE_RANGE = (0.98, 1.02)
"""Head height relative to the group's: neighbours differ by a few per cent."""

CROWN_RANGE = (0.09, 0.21)
"""Height of the crown below the top of the frame."""

MIDDLE_RANGE = (-0.05, 0.05)
"""Offset of the group from the middle line of the frame."""

CLOSE_HEAD_HEIGHT_RANGES = HEAD_HEIGHT_RANGES | {0: (0.36, 0.50), 1: (0.36, 0.50), 2: (0.36, 0.50)}
"""The same of close shots, drawn for each person: sizes differ by up to 1.4 times. Three people are as far as ever."""

CLOSE_SPACING_RANGES = SPACING_RANGES | {2: (1.95, 2.90)}
"""The same of close shots, in the mean radius; no wider than both faces fit into the middle square of the frame."""

CLOSE_HEAD_SHARE_RANGE = (1.0, 1.0)
"""Neighbours of a close shot have head heights of their own instead."""

CLOSE_CROWN_RANGE = (0.05, 0.30)
"""Height of the crown below the top of the frame in close shots."""

CLOSE_MIDDLE_RANGE = (-0.15, 0.15)
"""Offset of the group in close shots, no further than the faces stay inside the middle square of the frame."""

FACE_REACH = 0.95
"""Largest half-width of a face, in head radii."""

MOTION_RANGES: dict[str, tuple[float, float, float]] = {
    "x": (0.0, 0.0, 0.018),
    "y": (0.0, 0.0, 0.010),
    "yaw": (-0.38, 0.38, 0.12),
    "pitch": (-0.16, 0.16, 0.05),
    "roll": (-0.14, 0.14, 0.05),
    "lean": (-0.06, 0.06, 0.02),
    "smile": (-0.6, 1.0, 0.25),
}
"""Lowest and highest resting value and the amplitude of the sway around it; angles in radians."""

ARM_RANGES: dict[str, tuple[float, float, float]] = {
    "upper": (0.03, 0.17, 0.03),
    "hanging": (-0.30, 0.00, 0.10),
    "bent": (-2.05, -1.35, 0.14),
    "raised": (-2.75, -2.35, 0.14),
}
"""As `MOTION_RANGES`, of the upper arm's angle and of the elbow of an arm that hangs, is bent before the body, or is
raised to the chest, as a hand that holds something in a close shot is."""

AMPLITUDE_SHARE_RANGE = (0.5, 1.0)
"""Share of the amplitudes above in one person's sway."""

FREQUENCY_RANGE = (0.15, 0.45)
"""Swings per second of every sway."""

PHASE_RANGE = (0.0, 2.0 * np.pi)
"""Phase of every sway at time 0, in radians."""

BENT_SHARE = 0.4
"""Share of empty hands held before the body."""

GAIN_RANGE = (0.88, 1.08)
"""Brightness of an image."""

TINT_DEVIATION = 0.03
"""Standard deviation of each channel's brightness around 1."""

NOISE_RANGE = (0.0, 3.5)
"""Standard deviation of the sensor noise in 8-bit steps."""

LIGHT_SIDES = (-1.0, 1.0)
"""Where light comes from, left or right, equally likely."""


@dataclass(frozen=True, kw_only=True)
class Framing:
    """Where people stand before the camera, by their number."""

    head_heights: Mapping[int, tuple[float, float]]
    one_size: bool
    """Whether one head height is drawn for the whole group."""
    spacings: Mapping[int, tuple[float, float]]
    head_shares: tuple[float, float]
    crowns: tuple[float, float]
    middles: tuple[float, float]
    faces_in_square: bool
    """Whether the group is moved and narrowed so that every face lies inside the middle square of the frame."""
    holding_arm: Literal["bent", "raised"]


FAR = Framing(
    head_heights=HEAD_HEIGHT_RANGES,
    one_size=True,
    spacings=SPACING_RANGES,
    head_shares=HEAD_SHARE_RANGE,
    crowns=CROWN_RANGE,
    middles=MIDDLE_RANGE,
    faces_in_square=False,
    holding_arm="bent",
)
CLOSE = Framing(
    head_heights=CLOSE_HEAD_HEIGHT_RANGES,
    one_size=False,
    spacings=CLOSE_SPACING_RANGES,
    head_shares=CLOSE_HEAD_SHARE_RANGE,
    crowns=CLOSE_CROWN_RANGE,
    middles=CLOSE_MIDDLE_RANGE,
    faces_in_square=True,
    holding_arm="raised",
)


@dataclass(frozen=True)
class Sway:
    """A value that swings about its rest."""

    rest: float
    amplitude: float
    frequency_hz: float
    phase: float

    def at(self, time_s: float) -> float:
        """The value at a time."""
        return self.rest + self.amplitude * float(np.sin(2.0 * np.pi * self.frequency_hz * time_s + self.phase))


@dataclass(frozen=True)
class Person:
    """Somebody in a scene."""

    identity: Identity
    outfit: Outfit
    x: float
    """Offset of the head from the middle line of the frame."""

    crown: float
    head_height: float
    sways: dict[str, Sway]
    arms: dict[str, tuple[Sway, Sway]]
    """Upper arm and elbow of each side."""

    holding: str


@dataclass(frozen=True)
class Light:
    """Light and camera of a scene."""

    gain: float
    tint: tuple[float, float, float]
    noise: float
    side: float
    seed: int


@dataclass(frozen=True)
class Scene:
    """A place with people from left to right."""

    people: tuple[Person, ...]
    depth_order: tuple[int, ...]
    """Indices of people from the rearmost to the foremost."""

    background: Background
    light: Light


def sample_scene(
    rng: np.random.Generator,
    identities: Sequence[Identity],
    outfits: Sequence[Outfit] | None = None,
    framing: Framing = FAR,
) -> Scene:
    """A scene of up to three people from left to right, in fresh clothes unless ``outfits`` are given.

    Raises:
        ValueError: there are more than three people, or not one outfit for each.
    """
    count = len(identities)
    if count not in framing.spacings:
        raise ValueError(f"a scene holds up to three people, not {count}")
    worn = [sample_outfit(rng) for _ in identities] if outfits is None else list(outfits)
    if len(worn) != count:
        raise ValueError(f"{count} people need {count} outfits, not {len(worn)}")
    heights, places = _sample_places(rng, count, framing)
    return Scene(
        people=tuple(
            _sample_person(rng, (identity, outfit), x, height, framing)
            for identity, outfit, x, height in zip(identities, worn, places, heights, strict=True)
        ),
        depth_order=tuple(int(index) for index in rng.permutation(count)),
        background=sample_background(rng),
        light=_sample_light(rng),
    )


def _sample_places(rng: np.random.Generator, count: int, framing: Framing) -> tuple[list[float], list[float]]:
    """Head heights of everybody, and the places of the heads beside the middle line, from left to right."""
    drawn = [float(rng.uniform(*framing.head_heights[count])) for _ in range(1 if framing.one_size else count)]
    heights = drawn * count if framing.one_size else drawn
    radius = 0.5 * sum(drawn) / max(len(drawn), 1)
    nearest, farthest = framing.spacings[count]
    # How far the first and the last head may stand from the middle line.
    reach = [0.5 - MOTION_RANGES["x"][2] - 0.5 * FACE_REACH * height for height in (*heights[:1], *heights[-1:])]
    if framing.faces_in_square and count > 1:
        farthest = max(nearest, min(farthest, sum(reach) / (count - 1) / radius))
    spacing = radius * float(rng.uniform(nearest, farthest))
    low, high = framing.middles
    if framing.faces_in_square and count:
        half = 0.5 * spacing * (count - 1)
        low, high = max(low, half - reach[0]), min(high, reach[1] - half)
        low, high = min(low, 0.5 * (low + high)), max(high, 0.5 * (low + high))
    middle = float(rng.uniform(low, high))
    return heights, [middle + spacing * (index - 0.5 * (count - 1)) for index in range(count)]


def _sample_person(
    rng: np.random.Generator, who: tuple[Identity, Outfit], x: float, height: float, framing: Framing
) -> Person:
    identity, outfit = who
    holding = str(rng.choice(list(SIDES)))
    arms = {}
    for side in SIDES:
        holds = side == holding and outfit.held is not None
        bent = "bent" if not holds and rng.random() < BENT_SHARE else "hanging"
        elbow = _sample_sway(rng, ARM_RANGES[framing.holding_arm if holds else bent])
        arms[side] = (_sample_sway(rng, ARM_RANGES["upper"]), elbow)
    return Person(
        identity=identity,
        outfit=outfit,
        x=x,
        crown=float(rng.uniform(*framing.crowns)),
        head_height=height * float(rng.uniform(*framing.head_shares)),
        sways={name: _sample_sway(rng, span) for name, span in MOTION_RANGES.items()},
        arms=arms,
        holding=holding,
    )


def _sample_sway(rng: np.random.Generator, span: tuple[float, float, float]) -> Sway:
    low, high, amplitude = span
    return Sway(
        rest=float(rng.uniform(low, high)),
        amplitude=amplitude * float(rng.uniform(*AMPLITUDE_SHARE_RANGE)),
        frequency_hz=float(rng.uniform(*FREQUENCY_RANGE)),
        phase=float(rng.uniform(*PHASE_RANGE)),
    )


def _sample_light(rng: np.random.Generator) -> Light:
    red, green, blue = (float(value) for value in rng.normal(1.0, TINT_DEVIATION, 3))
    return Light(
        gain=float(rng.uniform(*GAIN_RANGE)),
        tint=(red, green, blue),
        noise=float(rng.uniform(*NOISE_RANGE)),
        side=float(rng.choice(LIGHT_SIDES)),
        seed=int(rng.integers(SEEDS)),
    )
