"""How soft a picture is, whatever it shows and however dark it is; and whether it is made of blocks.

Both find faces that were made unrecognisable, by blurring or by mosaics, which detectors and recognisers accept.
"""

from functools import cache

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

BLUR = 1.6
"""Standard deviation in pixels of the blur that a picture is asked to withstand."""
WIDEST = 16
"""Pictures wider than so many times their height are squeezed: a strip of a pixel's height would grow huge."""
LEAST_DETAIL = 0.1
"""Mean squared gradient, in grey levels, of what has no structure at all."""
LEAST_STEP = 0.25
"""Mean step between neighbouring pixels, in grey levels, of what has no structure at all."""


def softness(picture: UInt8[np.ndarray, "H W 3"], height_px: int, core: float = 1.0) -> float:
    """Part of the gradient's energy that survives a blur at a given height, in [0, 1].

    Only the ``core`` of the picture counts, its middle part of so much of the width and height.

    ``sum |grad(G * I)|^2 / sum |grad I|^2``: near 1 for what is already blurred, 0.2-0.5 for sharp pictures. Being a
    ratio it depends neither on brightness nor on contrast, other than the variance of a Laplacian.
    """
    grey = _grey(picture, height_px)
    detail = _gradient_energy(grey, core)
    return _gradient_energy(cv2.GaussianBlur(grey, (0, 0), BLUR), core) / detail if detail > LEAST_DETAIL else 1.0


def blockiness(picture: UInt8[np.ndarray, "H W 3"], height_px: int, blocks: tuple[int, int]) -> float:
    """How much steeper a picture is along the lines of some square grid than elsewhere; about 1.5 without a grid.

    Of all grids with between ``blocks`` cells over the height, the best one counts; the lines of both directions must
    show, which stripes, teeth and window frames do not.
    """
    grey = _grey(picture, height_px)
    columns, rows = np.abs(np.diff(grey, axis=1)).mean(axis=0), np.abs(np.diff(grey, axis=0)).mean(axis=1)
    ordinary = [max(float(np.median(profile)), LEAST_STEP) for profile in (columns, rows)]
    best = 0.0
    for cell in np.arange(height_px / blocks[1], height_px / blocks[0], 0.5):
        vertical = _steps(columns, float(cell)) / ordinary[0]
        if vertical > best:  # otherwise the other direction need not be looked at
            best = max(best, min(vertical, _steps(rows, float(cell)) / ordinary[1]))
    return best


def _steps(profile: Float[np.ndarray, " n"], cell: float) -> float:
    """Median of a profile on the best grid lines; 0 with fewer than three lines."""
    lines = _grid_lines(len(profile), cell)
    return float(np.median(profile[lines], axis=1).max()) if lines.shape[1] >= 3 else 0.0


@cache
def _grid_lines(length: int, cell: float) -> Int[np.ndarray, "phases lines"]:
    """Places of the lines of a grid in a profile, one row per phase."""
    phases = np.arange(0.0, cell, 0.5)
    num_lines = int((length - 1 - phases[-1]) // cell) + 1 if length > phases[-1] else 0
    return np.round(phases[:, None] + cell * np.arange(num_lines)).astype(int).clip(max=max(length - 1, 0))


def _grey(picture: UInt8[np.ndarray, "H W 3"], height_px: int) -> Float[np.ndarray, "h w"]:
    scale = height_px / picture.shape[0]
    size = (min(max(1, round(picture.shape[1] * scale)), WIDEST * height_px), height_px)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.cvtColor(cv2.resize(picture, size, interpolation=method), cv2.COLOR_RGB2GRAY).astype(np.float32)


def _gradient_energy(grey: Float[np.ndarray, "h w"], core: float) -> float:
    """Mean squared gradient of the core by Sobel's kernels, scaled to grey levels per pixel."""
    horizontal, vertical = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    top, left = (round((1 - core) / 2 * side) for side in grey.shape)
    energy = (horizontal**2 + vertical**2)[top : grey.shape[0] - top, left : grey.shape[1] - left]
    return float(energy.mean()) / 64
