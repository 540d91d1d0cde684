"""Pairs of people who differ in one or two lasting traits and are otherwise equal, down to the shape of the face.

These are the pairs on which a generator that mixes up two references is caught. Only traits that a recogniser
distinguishes with certainty are changed; shape alone is not among them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from mcpipe.world.attributes.glasses import FRAME_COLOURS
from mcpipe.world.attributes.hair import HAIR_COLOURS, HAIR_JITTER
from mcpipe.world.attributes.skin import SKIN_JITTER, SKIN_TONES, skin_tone
from mcpipe.world.colours import jittered
from mcpipe.world.identities import Identity

NUM_CHANGES = (1, 2)
"""How many traits of a look-alike differ, equally likely."""

Change = Callable[[np.random.Generator, Identity], dict[str, Any]]
"""Function that draws the changed values of one trait."""


def look_alike(rng: np.random.Generator, identity: Identity) -> Identity:
    """Somebody who differs from ``identity`` in one or two traits of `CHANGES`, and in nothing else.

    The colour of a bald person's hair stays: it shows in a beard at most.
    """
    able = [name for name in CHANGES if name != "hair_colour" or identity.hair_cut != "bald"]
    total = int(rng.choice(NUM_CHANGES))
    for name in rng.permutation(able)[:total]:
        identity = identity.changed(**CHANGES[str(name)](rng, identity))
    return identity


def differences(first: Identity, second: Identity) -> set[str]:
    """Names of the traits in which two people differ; the exact shade belongs to the hair's colour."""
    mine, theirs = first.values, second.values
    differing = {name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)}
    return {"hair_colour" if name == "hair_rgb" else name for name in differing}


def _hair_colour(rng: np.random.Generator, identity: Identity) -> dict[str, Any]:
    others = [name for name in HAIR_COLOURS if name != identity.hair_colour]
    colour = str(rng.choice(others))
    return {"hair_colour": colour, "hair_rgb": jittered(HAIR_COLOURS[colour], HAIR_JITTER, rng)}


def _glasses(rng: np.random.Generator, identity: Identity) -> dict[str, Any]:
    put_on = FRAME_COLOURS[int(rng.integers(len(FRAME_COLOURS)))]
    return {"glasses": put_on if identity.glasses is None else None}


def _skin(rng: np.random.Generator, identity: Identity) -> dict[str, Any]:
    others = [place for place, name in enumerate(SKIN_TONES) if name != skin_tone(identity.skin)]
    middle = int(rng.choice(others)) / (len(SKIN_TONES) - 1)
    return {"skin": float(np.clip(middle + rng.uniform(-SKIN_JITTER, SKIN_JITTER), 0.0, 1.0))}


def _facial_hair(_rng: np.random.Generator, identity: Identity) -> dict[str, Any]:
    return {"facial_hair": "none" if identity.facial_hair == "beard" else "beard"}


CHANGES: dict[str, Change] = {
    "hair_colour": _hair_colour,
    "skin": _skin,
    "facial_hair": _facial_hair,
    "glasses": _glasses,
}
"""The traits that a look-alike may differ in."""
