"""Clothes and held object of a person in one scene; drawn per scene, so that clothes do not reveal identity."""

import numpy as np

from mcpipe.world.attributes.held import OBJECTS
from mcpipe.world.attributes.pattern import PATTERNS
from mcpipe.world.attributes.shirt import LONG_SLEEVES_SHARE
from mcpipe.world.colours import COLOURS
from mcpipe.world.discovery import sampled
from mcpipe.world.traits import Outfit

__all__ = ["COLOURS", "LONG_SLEEVES_SHARE", "OBJECTS", "PATTERNS", "Outfit", "sample_outfit"]


def sample_outfit(rng: np.random.Generator) -> Outfit:
    """A shirt of any colour, an object in the hand or none, and the values of further attributes."""
    return sampled(Outfit, rng)
