"""The reader of images for all verbs and stages and for the Python class: uint8 RGB as a viewer shows them.

It accepts files, Pillow's images, numpy arrays and tensors, and applies EXIF orientation, ICC profiles and
transparency.
"""

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin, UnidentifiedImageError

from mcpipe.core.errors import one_line
from mcpipe.models.image_arrays import ImageInput, array_of, image_of
from mcpipe.models.protocols import Picture

logger = logging.getLogger(__name__)

GREY_16_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of such images; Pillow's own conversion clips values above 255."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transpositions by EXIF orientation; ``ImageOps.exif_transpose`` fails on unrelated damaged tags."""
PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Pillow's mode by the colour space of an ICC profile."""

NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow identifies, but decodes only with other programs."""
NO_SIGNATURE = frozenset({"TGA"})
"""Formats that are identified almost only by the ending of the file's name."""
OTHER_ENDINGS = (".heic", ".heif", ".hif", ".jxl")
"""Endings of images that this version of Pillow may be unable to read."""
DECODING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,  # ultralytics, once imported, makes Pillow look for a HEIF plug-in when it cannot read a file
    Image.DecompressionBombError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""Errors that Pillow's decoders raise for damaged files."""


class UnusableImageError(ValueError):
    """A file that cannot be read as an image."""

    def __init__(self, subject: str, reason: str, fault: str) -> None:
        """Store ``reason``, the fault's name (``unreadable`` or ``not_a_picture``), and ``fault``, a description."""
        super().__init__(f"{subject} cannot be read: {fault}")
        self.reason, self.fault = reason, fault


def read_image(source: ImageInput, name: str = "") -> Picture:
    """The first frame of an image, upright, in sRGB, on white, scaled to 8 bits: uint8 (H, W, 3).

    ``name`` is the caller's name of the source for messages. Grey of 16 bits keeps its upper 8 bits; the range of
    floats in a file ends at 1 or, if any value is larger, at 255.

    Raises:
        FileNotFoundError: the file does not exist.
        UnusableImageError: the file is not an image, is damaged, or has more pixels than Pillow opens.
        ValueError: the source is of another kind, or its shape, type or values are not among `image_arrays.ACCEPTED`.
    """
    if isinstance(source, str | Path):
        return _read_file(Path(source), f"{name}: " if name else "")
    name = name or "the image"
    image = source if isinstance(source, Image.Image) else image_of(array_of(source, name), name)
    if not image.width * image.height:
        raise ValueError(f"{name} is an image without pixels")
    try:
        with _quiet_pillow():
            return _rgb(image)
    except DECODING_ERRORS as error:
        raise ValueError(f"{name} cannot be read: {_fault(error)}") from error


def read_encoded_image(content: bytes, name: str) -> Picture:
    """The image in the bytes of a file; as `read_image`.

    Raises:
        UnusableImageError: the bytes are no image, are damaged, or hold more pixels than Pillow opens.
    """
    try:
        with _quiet_pillow(), Image.open(io.BytesIO(content), formats=_formats(Path())) as image:
            return _rgb(image)
    except DECODING_ERRORS as error:
        unknown = isinstance(error, UnidentifiedImageError | ImportError)
        fault = "it is in no image format that Pillow decodes" if content else "it is empty"
        reason = "not_a_picture" if unknown else "unreadable"
        raise UnusableImageError(name, reason, fault if unknown else _fault(error)) from error


def is_image(file: Path) -> bool:
    """Whether a file has the ending or the content of an image; the content may be incomplete."""
    if _is_called_image(file) or not file.is_file():
        return _is_called_image(file)
    try:
        with _quiet_pillow(), Image.open(file, formats=_formats(file)):
            return True
    except DECODING_ERRORS:
        return False


def _is_called_image(file: Path) -> bool:
    return file.suffix.lower() in OTHER_ENDINGS or _format_of(file) in Image.OPEN.keys() - NOT_DECODED


def _format_of(file: Path) -> str:
    """Pillow's name of the format that belongs to the ending of a file's name."""
    return Image.registered_extensions().get(file.suffix.lower(), "")


def _formats(file: Path) -> list[str]:
    """Possible formats of a file."""
    Image.init()
    unlikely = set() if _is_called_image(file) else NO_SIGNATURE
    return sorted(Image.OPEN.keys() - NOT_DECODED - unlikely)


def _read_file(file: Path, prefix: str) -> Picture:
    if not file.is_file():
        raise FileNotFoundError(f"{prefix}{file} is {'a folder' if file.is_dir() else 'no file'}")
    try:
        with _quiet_pillow(), Image.open(file, formats=_formats(file)) as image:
            return _rgb(image)
    except DECODING_ERRORS as error:
        unknown = isinstance(error, UnidentifiedImageError | ImportError)
        reason = "not_a_picture" if unknown and not _is_called_image(file) else "unreadable"
        fault = _unknown_format(file) if unknown else _fault(error).replace(str(file), "the file")
        raise UnusableImageError(f"{prefix}{file.name}", reason, fault) from error


def _fault(error: BaseException) -> str:
    """The message of a decoder's error, or the name of the error."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
    return reason or type(error).__name__


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Suppress Pillow's messages about errors that it also raises, and warnings about large images and unusual tags."""
    pillow = logging.getLogger("PIL")
    level = pillow.level
    pillow.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        pillow.setLevel(level)


def _unknown_format(file: Path) -> str:
    """Reason why Pillow does not identify a file."""
    if not file.stat().st_size:
        return "it is empty"
    if file.suffix.lower() in OTHER_ENDINGS:
        return f"{file.suffix.lower()[1:].upper()} is not among the formats of this Pillow; convert it to PNG or JPEG"
    return "it is in no image format that Pillow decodes"


def _rgb(image: Image.Image) -> Picture:
    """Pillow's image of any mode as RGB."""
    image.load()  # Pillow applies the orientation of TIFF here
    if image.mode == "P" and image.palette is None:  # of ICNS
        image = image.convert("RGBA")
    profile = image.info.get("icc_profile")
    oriented = _oriented(_eight_bits(image))
    if not oriented.has_transparency_data:
        return np.asarray(_srgb(oriented, profile))
    if oriented.mode in ("La", "RGBa"):  # colours multiplied by opacity
        oriented = oriented.convert(oriented.mode.upper())
    straight = oriented.convert("RGBA")
    colours = _srgb(oriented.getchannel("L") if oriented.mode == "LA" else straight.convert("RGB"), profile)
    colours.putalpha(straight.getchannel("A"))
    return np.asarray(Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB"))


def _oriented(image: Image.Image) -> Image.Image:
    """An image turned by its EXIF orientation; unchanged if EXIF is damaged, as in viewers."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, TypeError, ValueError, struct.error):
        turn = None
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits or floats as grey of 8 bits, with opacity where a value stands for transparency; others stay.

    Raises:
        ValueError: values are negative, not finite or too large.
    """
    if image.mode not in (*GREY_16_BIT, "F"):
        return image
    values = np.asarray(image)
    least, most = values.min(), values.max()
    if image.mode == "F":
        largest = 1.0 if most <= 1 else 255.0
        scaled = values * np.float32(255 / largest)
    else:
        bits, white_is_zero = _tiff_grey(image)
        largest = 2**bits - 1
        scaled = (largest - values if white_is_zero else values) >> (bits - 8)
    if not 0 <= least <= most <= largest:  # false for NaN, too
        raise ValueError(f"grey values from {least} to {most}; expected are 0 to {largest:g}")
    grey = Image.fromarray(np.rint(scaled).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    if "exif" in image.info:
        grey.info["exif"] = image.info["exif"]
    return grey


def _tiff_grey(image: Image.Image) -> tuple[int, bool]:
    """Bits per pixel of deep grey, and whether 0 is white; Pillow leaves both to its callers."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 16, False
    bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
    white_is_zero = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    return min(int(bits), 16), white_is_zero


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An opaque image in the colours of sRGB; a profile that does not fit is ignored, as in viewers."""
    if image.mode == "LAB":
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        return _transformed(image, source)
    if not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = PROFILE_MODES.get(source.profile.xcolor_space.strip())
        if mode is not None and (mode == image.mode or (mode == "RGB" and image.mode != "CMYK")):
            return _transformed(image.convert(mode), source)
        fault = f"it is for {source.profile.xcolor_space.strip()}, the image is {image.mode}"
    except (OSError, ImageCms.PyCMSError) as error:
        fault = str(error)
    logger.info("a colour profile is not used: %s", fault)
    return image.convert("RGB")


def _transformed(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    transformed = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert transformed is not None, "it is not changed in place"
    return transformed
