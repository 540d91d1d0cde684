"""Images of the report page: everything becomes text that stands in the page itself, the same bytes every time."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageOps

PERSON_COLOURS = ((58, 124, 190), (222, 128, 52), (76, 153, 98), (160, 94, 168))
"""Colours of subjects, which people without red-green vision can distinguish."""
LOSSLESS_PX = 128
"""Images up to this side stay PNG: at that size compression artefacts would be the image."""
JPEG_QUALITY = 86
BODY_OPACITY, FACE_OPACITY = 0.35, 0.75


def data_uri(picture: UInt8[np.ndarray, "H W 3"], longest_px: int) -> str:
    """An image as a ``data:`` address, made smaller if its longer side exceeds ``longest_px``."""
    image = Image.fromarray(picture)
    image.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if max(image.size) <= LOSSLESS_PX:
        kind = "png"
        image.save(buffer, "PNG", optimize=True)
    else:
        kind = "jpeg"
        image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def contact_sheet(rows: Sequence[Sequence[UInt8[np.ndarray, "H W 3"]]], tile_px: int, gap_px: int) -> Image.Image:
    """Rows of images, each image whole in a square tile, on white.

    Raises:
        ValueError: there is no image.
    """
    if not any(rows):
        raise ValueError("a contact sheet needs at least one picture")
    pitch = tile_px + gap_px
    sheet = Image.new("RGB", (max(map(len, rows)) * pitch + gap_px, len(rows) * pitch + gap_px), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            tile = ImageOps.pad(Image.fromarray(picture), (tile_px, tile_px), Image.Resampling.LANCZOS, color="white")
            sheet.paste(tile, (x * pitch + gap_px, y * pitch + gap_px))
    return sheet


def mask_overlay(
    picture: UInt8[np.ndarray, "H W 3"], bodies: Bool[np.ndarray, "N H W"], faces: Bool[np.ndarray, "N H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """The image in grey under one colour per person, stronger on the face."""
    painted = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    for i, (body, face) in enumerate(zip(bodies, faces, strict=True)):
        colour = np.array(PERSON_COLOURS[i % len(PERSON_COLOURS)], np.float64)
        opacity = np.where(face, FACE_OPACITY, np.where(body, BODY_OPACITY, 0.0))[:, :, None]
        painted = painted * (1 - opacity) + colour * opacity
    return painted.round().astype(np.uint8)


def heat_overlay(
    picture: UInt8[np.ndarray, "H W 3"], heat: Float[np.ndarray, "h w"], person: int
) -> UInt8[np.ndarray, "H W 3"]:
    """The image in grey, lit in a person's colour where ``heat``, scaled to its own maximum, is high."""
    height, width = picture.shape[:2]
    scaled = heat / max(float(heat.max()), 1e-12)
    coarse = Image.fromarray((scaled * 255).round().astype(np.uint8))
    opacity = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR), np.float64)[:, :, None] / 255
    grey = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2) * 0.75
    colour = np.array(PERSON_COLOURS[person % len(PERSON_COLOURS)], np.float64)
    return (grey * (1 - 0.85 * opacity) + colour * 0.85 * opacity).round().astype(np.uint8)
