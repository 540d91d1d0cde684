"""Copies of references among drawn objects: how close a cut-out may come is measured on real targets.

An object and its reference are both on white and equally large (`mcpipe.curate.samples.portrait`). Their distance is
the mean absolute difference of colours on a coarse grid, in [0, 1]. A drawn object counts as a copy if it is nearer to
its reference than all but a rare share of the objects of real held-out targets are to theirs, which show the same
object at another moment. By definition about that share of real objects counts as copies, too.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

GRID = 24
"""Side in pixels at which cut-outs are compared."""


def cutout_distance(a: UInt8[np.ndarray, "S S 3"], b: UInt8[np.ndarray, "S S 3"]) -> float:
    """Mean absolute difference of colours of two cut-outs, in [0, 1]."""
    first, second = (
        np.asarray(Image.fromarray(picture).resize((GRID, GRID), Image.Resampling.BOX), np.float32) / 255
        for picture in (a, b)
    )
    return float(np.abs(first - second).mean())


def copy_threshold(real: Sequence[float], rare: float) -> float:
    """The distance below which a drawn object is a copy: the quantile ``rare`` of those of real objects.

    Raises:
        ValueError: there are no real objects.
    """
    if not len(real):
        raise ValueError("no object of a real target was located, so that nothing says what a copy is")
    return float(np.quantile(real, rare))
