"""Who a person of the puppet world is: the lasting traits of a face, drawn from documented ranges.

Clothes, held objects, poses and light belong to a scene, never to an identity. Identities are drawn from named
streams of random numbers (`world_rng`), so that those of the zoo, of the clips and of the face pool never meet.
"""

import numpy as np

from mcpipe.world.attributes.eyes import EYE_COLOURS
from mcpipe.world.attributes.facial_hair import FACIAL_HAIR
from mcpipe.world.attributes.freckles import FRECKLES_RANGE
from mcpipe.world.attributes.glasses import GLASSES_SHARE
from mcpipe.world.attributes.hair import HAIR_COLOURS, HAIR_CUTS
from mcpipe.world.attributes.shape import BUILD_RANGE, SHAPE_RANGES
from mcpipe.world.attributes.skin import SKIN_TONES
from mcpipe.world.discovery import sampled
from mcpipe.world.traits import Identity, world_rng

__all__ = [
    "EYE_COLOURS", "FACIAL_HAIR", "GEOMETRY_RANGES", "GLASSES_SHARE", "HAIR_COLOURS", "HAIR_CUTS", "SKIN_TONES",
    "Identity", "sample_identity", "world_rng",
]  # fmt: skip

GEOMETRY_RANGES = SHAPE_RANGES | {"freckles": FRECKLES_RANGE, "build": BUILD_RANGE}
"""The range from which each trait of `Identity.geometry` is drawn, uniformly."""


def sample_identity(rng: np.random.Generator) -> Identity:
    """A new person, every trait of every attribute drawn from its documented range."""
    return sampled(Identity, rng)
