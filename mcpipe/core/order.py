"""The order of references, which carries no information: it depends only on the seed and the number of the draw."""

import numpy as np
from jaxtyping import Int

STREAM = 0x07DE7
"""Keeps these random numbers apart from others that are drawn from the same seed."""


def reference_order(num_references: int, seed: int, position: int) -> Int[np.ndarray, " references"]:
    """A permutation of references, the same at every call; each is as likely as any other."""
    return np.random.default_rng((STREAM, seed, position)).permutation(num_references)
