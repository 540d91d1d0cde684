"""Orientation and pixel aspect of decoded frames, as a viewer applies them."""

import numpy as np
from jaxtyping import Int32

from mcpipe.models.protocols import Picture

ODDEST_PIXEL = 4.0
"""Maximum aspect of a pixel; larger values in a header are ignored, because no camera has them."""


def square_pixels(picture: Picture, aspect: float) -> Picture:
    """An image whose pixels are ``aspect`` times as wide as high, resampled to square pixels; it is never shrunk."""
    import cv2

    if aspect == 1 or not 1 / ODDEST_PIXEL <= aspect <= ODDEST_PIXEL:
        return picture
    height, width = picture.shape[:2]
    size = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    return cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)


def turned(picture: Picture, matrix: Int32[np.ndarray, " 9"] | None) -> Picture:
    """An image turned by quarter turns and mirrored by a display matrix (ISO/IEC 14496-12).

    The matrix takes a stored pixel (x, y) to the shown one (a x + c y, b x + d y), with a, b, c, d its entries 0, 1,
    3 and 4. Other angles than quarters are left to the nearest one.
    """
    if matrix is None:
        return picture
    a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, a, d = picture.transpose(1, 0, 2), c, b
    if a < 0:
        picture = picture[:, ::-1]
    if d < 0:
        picture = picture[::-1]
    return np.ascontiguousarray(picture)
