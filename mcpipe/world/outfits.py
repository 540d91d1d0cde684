"""What a person wears and holds in one scene; drawn per scene, so that identity never hides in clothes."""

from dataclasses import dataclass

import numpy as np

from mcpipe.world.identities import Colour, jittered

COLOURS: dict[str, Colour] = {
    "red": (212, 48, 48),
    "orange": (240, 138, 40),
    "yellow": (244, 214, 64),
    "green": (52, 156, 76),
    "blue": (48, 92, 208),
    "purple": (134, 70, 176),
    "pink": (244, 156, 188),
    "white": (240, 240, 236),
    "gray": (140, 142, 148),
    "black": (42, 42, 50),
}
"""Named colours of clothes and objects."""

PATTERNS = ("plain", "striped")
OBJECTS = ("ball", "box", "cup", "book", "flower")

STRIPED_SHARE = 0.4
HOLDING_SHARE = 0.65
LONG_SLEEVES_SHARE = 0.5
COLOUR_JITTER = 7.0
"""Standard deviation around a named colour, in 8-bit steps."""


@dataclass(frozen=True)
class HeldObject:
    """A thing in somebody's hand."""

    kind: str
    colour: str
    rgb: Colour


@dataclass(frozen=True)
class Outfit:
    """A shirt and possibly a held object."""

    colour: str
    rgb: Colour
    pattern: str
    """One of `PATTERNS`."""

    long_sleeves: bool
    collar: bool
    held: HeldObject | None


def sample_outfit(rng: np.random.Generator) -> Outfit:
    """A shirt of any colour, striped or plain, and with `HOLDING_SHARE` an object of any kind and colour."""
    colour = str(rng.choice(list(COLOURS)))
    striped = rng.random() < STRIPED_SHARE
    return Outfit(
        colour=colour,
        rgb=jittered(COLOURS[colour], COLOUR_JITTER, rng),
        pattern="striped" if striped else "plain",
        long_sleeves=bool(rng.random() < LONG_SLEEVES_SHARE),
        collar=bool(rng.random() < 0.5),
        held=_held_object(rng) if rng.random() < HOLDING_SHARE else None,
    )


def _held_object(rng: np.random.Generator) -> HeldObject:
    kind, colour = str(rng.choice(OBJECTS)), str(rng.choice(list(COLOURS)))
    return HeldObject(kind=kind, colour=colour, rgb=jittered(COLOURS[colour], COLOUR_JITTER, rng))
