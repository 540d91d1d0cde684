"""Picture files from anywhere, read as people see them."""

import struct
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from mcpipe.models.protocols import Picture

GREY_16_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of such pictures; its own conversion would make everything above 255 white."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What each orientation of EXIF asks for; ``ImageOps.exif_transpose`` stumbles over tags that do not matter here."""


def read_picture(file: Path) -> Picture:
    """A picture upright, in RGB, transparent parts white, 16 bits of grey scaled to 8.

    Raises:
        ValueError: it cannot be decoded, or is too large.
    """
    try:
        with Image.open(file) as image:
            image.load()
            return np.asarray(_coloured(_upright(image)))
    # ImportError: ultralytics, once imported, makes Pillow look for a HEIF plug-in when it cannot read a file.
    # RuntimeError: what Pillow says of a broken AVIF file.
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError, ImportError, RuntimeError) as error:
        raise ValueError(f"{file.name} cannot be read: {str(error).replace(str(file), file.name)}") from error


def _upright(image: Image.Image) -> Image.Image:
    """A picture turned as its EXIF says; not at all where that is damaged, as viewers do it."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, TypeError, ValueError, struct.error):
        turn = None
    return image if turn is None else image.transpose(turn)


def _coloured(image: Image.Image) -> Image.Image:
    """A picture of any mode in RGB."""
    if image.mode in GREY_16_BIT:
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(page, image.convert("RGBA"))
    return image.convert("RGB")
