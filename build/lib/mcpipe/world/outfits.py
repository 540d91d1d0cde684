"""What a person wears and holds in one scene; drawn per scene, so that identity never hides in clothes."""

import numpy as np

from mcpipe.world.attributes.held import OBJECTS
from mcpipe.world.attributes.pattern import PATTERNS
from mcpipe.world.attributes.shirt import LONG_SLEEVES_SHARE
from mcpipe.world.colours import COLOURS
from mcpipe.world.discovery import sampled
from mcpipe.world.traits import Outfit

__all__ = ["COLOURS", "LONG_SLEEVES_SHARE", "OBJECTS", "PATTERNS", "Outfit", "sample_outfit"]


def sample_outfit(rng: np.random.Generator) -> Outfit:
    """A shirt of any colour, an object in the hand or none, and whatever else attributes add."""
    return sampled(Outfit, rng)
