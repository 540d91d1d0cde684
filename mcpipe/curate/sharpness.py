"""Softness of an image, independent of content and brightness, and blockiness.

Both find faces that were anonymised by blurring or by mosaics, which detectors and recognisers accept.
"""

from functools import cache

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

BLUR = 1.6
"""Standard deviation in pixels of the blur whose effect is measured."""
WIDEST = 16
"""Maximum ratio of width to height; wider images are squeezed, because a strip of one pixel would grow huge."""
LEAST_DETAIL = 0.1
"""Mean squared gradient, in grey levels, of an area without structure."""
LEAST_STEP = 0.25
"""Mean step between neighbouring pixels, in grey levels, of an area without structure."""


def softness(picture: UInt8[np.ndarray, "H W 3"], height_px: int, core: float = 1.0) -> float:
    """Part of the gradient's energy that survives a blur at a given height, in [0, 1].

    Only the ``core`` of the image counts, its middle part as a fraction of width and height.

    ``sum |grad(G * I)|^2 / sum |grad I|^2``: near 1 for blurred images, 0.2-0.5 for sharp images. As a ratio, it
    depends neither on brightness nor on contrast, unlike the variance of a Laplacian.
    """
    grey = _grey(picture, height_px)
    detail = _gradient_energy(grey, core)
    return _gradient_energy(cv2.GaussianBlur(grey, (0, 0), BLUR), core) / detail if detail > LEAST_DETAIL else 1.0


def blockiness(picture: UInt8[np.ndarray, "H W 3"], height_px: int, blocks: tuple[int, int]) -> float:
    """Ratio of the gradient along the lines of a square grid to the gradient elsewhere; about 1.5 without a grid.

    It is the maximum over all grids whose number of cells over the height lies in ``blocks``. Lines in both directions
    must be visible, which excludes stripes, teeth and window frames.
    """
    grey = _grey(picture, height_px)
    columns, rows = np.abs(np.diff(grey, axis=1)).mean(axis=0), np.abs(np.diff(grey, axis=0)).mean(axis=1)
    ordinary = [max(float(np.median(profile)), LEAST_STEP) for profile in (columns, rows)]
    best = 0.0
    for cell in np.arange(height_px / blocks[1], height_px / blocks[0], 0.5):
        vertical = _steps(columns, float(cell)) / ordinary[0]
        if vertical > best:  # otherwise the other direction cannot matter
            best = max(best, min(vertical, _steps(rows, float(cell)) / ordinary[1]))
    return best


def _steps(profile: Float[np.ndarray, " n"], cell: float) -> float:
    """Median of a profile on the best grid lines; 0 with fewer than three lines."""
    lines = _grid_lines(len(profile), cell)
    return float(np.median(profile[lines], axis=1).max()) if lines.shape[1] >= 3 else 0.0


@cache
def _grid_lines(length: int, cell: float) -> Int[np.ndarray, "phases lines"]:
    """Positions of the lines of a grid in a profile, one row per phase."""
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
