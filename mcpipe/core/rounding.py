"""Precision of what face recognisers say, so that the last digits of a processor decide nothing."""

import numpy as np
from jaxtyping import Float

DECIMALS = 4
"""Decimals of scores, embeddings and cosines; processors differ from the sixth or seventh decimal on."""
PIXEL_DECIMALS = 2
"""Decimals of boxes and landmarks, in pixels."""


def cosines(first: Float[np.ndarray, "M D"], second: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "M N"]:
    """The cosines of embeddings of unit length, rounded to `DECIMALS`; thresholds and rewards see no other ones."""
    return (first @ second.T).round(DECIMALS)
