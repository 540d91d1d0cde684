"""Scenes before the camera: people with clothes, poses and a place, drawn from documented ranges.

A two-shot as on television: half bodies, heads of about 0.3 of the frame's height, side by side. Lengths of a scene
are in frame heights, from the top and from the middle line of the frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
}
"""As `MOTION_RANGES`, of the upper arm's angle and of the elbow of an arm that hangs or is bent before the body."""

AMPLITUDE_SHARE_RANGE = (0.5, 1.0)
"""Share of the amplitudes above in one person's sway."""

FREQUENCY_RANGE = (0.15, 0.45)
"""Swings per second of every sway."""

PHASE_RANGE = (0.0, 2.0 * np.pi)
"""Phase of every sway at time 0, in radians."""

BENT_SHARE = 0.4
"""Share of empty hands held before the body."""

GAIN_RANGE = (0.88, 1.08)
"""Brightness of a picture."""

TINT_DEVIATION = 0.03
"""Standard deviation of each channel's brightness around 1."""

NOISE_RANGE = (0.0, 3.5)
"""Standard deviation of the sensor noise in 8-bit steps."""

LIGHT_SIDES = (-1.0, 1.0)
"""Where light comes from, left or right, equally likely."""


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
    rng: np.random.Generator, identities: Sequence[Identity], outfits: Sequence[Outfit] | None = None
) -> Scene:
    """A scene of up to three people from left to right, in fresh clothes unless ``outfits`` are given.

    Raises:
        ValueError: there are more than three people, or not one outfit for each.
    """
    count = len(identities)
    if count not in SPACING_RANGES:
        raise ValueError(f"a scene holds up to three people, not {count}")
    worn = [sample_outfit(rng) for _ in identities] if outfits is None else list(outfits)
    if len(worn) != count:
        raise ValueError(f"{count} people need {count} outfits, not {len(worn)}")
    height = float(rng.uniform(*HEAD_HEIGHT_RANGES[count]))
    spacing = 0.5 * height * float(rng.uniform(*SPACING_RANGES[count]))
    middle = float(rng.uniform(*MIDDLE_RANGE))
    places = [middle + spacing * (index - 0.5 * (count - 1)) for index in range(count)]
    return Scene(
        people=tuple(
            _sample_person(rng, (identity, outfit), x, height)
            for identity, outfit, x in zip(identities, worn, places, strict=True)
        ),
        depth_order=tuple(int(index) for index in rng.permutation(count)),
        background=sample_background(rng),
        light=_sample_light(rng),
    )


def _sample_person(rng: np.random.Generator, who: tuple[Identity, Outfit], x: float, height: float) -> Person:
    identity, outfit = who
    holding = str(rng.choice(list(SIDES)))
    arms = {}
    for side in SIDES:
        bent = (side == holding and outfit.held is not None) or rng.random() < BENT_SHARE
        elbow = _sample_sway(rng, ARM_RANGES["bent" if bent else "hanging"])
        arms[side] = (_sample_sway(rng, ARM_RANGES["upper"]), elbow)
    return Person(
        identity=identity,
        outfit=outfit,
        x=x,
        crown=float(rng.uniform(*CROWN_RANGE)),
        head_height=height * float(rng.uniform(*HEAD_SHARE_RANGE)),
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
