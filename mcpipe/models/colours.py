"""Conversion of decoded frames to 8-bit RGB of standard dynamic range; other frames are rejected by name.

Numbers are the code points of ITU-T H.273. The colour tags of a frame come first, then those of the container's header,
then the size: untagged HD is BT.709 (ITU-R), and smaller frames are BT.601, as in players.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mcpipe.models.containers import UnusableClipError
from mcpipe.models.protocols import Picture

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.stream import VideoStream

OPAQUE = 255
"""Alpha of an opaque pixel."""

HD_LINES, HD_COLUMNS = 720, 1280
"""Minimum size of an untagged HD frame; wide images of 1280 columns have fewer lines."""

BT709 = 1
UNSPECIFIED = frozenset({0, 2, 3})
"""Reserved and unspecified code points. As a matrix, 0 stands for RGB, which the pixel format shows."""

HDR_TRANSFERS = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}
LINEAR_TRANSFERS = {8: "linear light", 9: "logarithmic", 10: "logarithmic", 17: "SMPTE ST 428-1"}
HDR_MATRICES = {14: "ICtCp", 15: "IPT-PQ-C2"}
HDR_METADATA = (
    "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "DYNAMIC_HDR_PLUS", "DYNAMIC_HDR_VIVID", "DOVI_RPU_BUFFER",
    "DOVI_METADATA",
)  # fmt: skip
"""Side data that only frames of HDR clips have; it decides where the transfer is unspecified."""
WIDE_PRIMARIES = {9: "BT.2020", 10: "XYZ (SMPTE ST 428-1)", 11: "DCI-P3 (SMPTE RP 431-2)", 12: "Display P3"}
WIDE_MATRICES = {9: "BT.2020", 10: "BT.2020, constant luminance"}
"""Matrices that imply the primaries where none are specified."""
READABLE_MATRICES = frozenset({1, 4, 5, 6, 7, 9}) | UNSPECIFIED
"""Matrices that FFmpeg's scaler converts to RGB."""

INTERLACED_ORDERS = frozenset({2, 3, 4, 5})
"""FFmpeg's ``AVFieldOrder`` of streams made of fields."""


@dataclass(frozen=True)
class Tags:
    """Colour tags of a stream in the container's header."""

    primaries: int
    transfer: int
    matrix: int
    range: int
    """FFmpeg's ``AVColorRange``: 0 unspecified, 1 limited, 2 full."""
    is_interlaced: bool

    @classmethod
    def of(cls, stream: "VideoStream") -> "Tags":
        """The tags of a stream, which must be read before decoding replaces them."""
        context = stream.codec_context
        return cls(
            primaries=int(context.color_primaries),
            transfer=int(context.color_trc),
            matrix=int(context.colorspace),
            range=int(context.color_range),
            is_interlaced=context.field_order in INTERLACED_ORDERS,
        )

    def complete(self, frame: "VideoFrame") -> None:
        """Fill in the tags that a frame lacks."""
        if frame.color_primaries in UNSPECIFIED:
            frame.color_primaries = self.primaries
        if frame.color_trc in UNSPECIFIED:
            frame.color_trc = self.transfer
        if frame.format.is_rgb or frame.format.name == "pal8":
            return
        if not frame.color_range:
            frame.color_range = self.range
        if frame.colorspace in UNSPECIFIED:
            is_hd = frame.height >= HD_LINES or frame.width >= HD_COLUMNS
            guess = BT709 if is_hd else frame.colorspace
            frame.colorspace = guess if self.matrix in UNSPECIFIED else self.matrix


def check_colours(frame: "VideoFrame", tags: Tags) -> None:
    """Check that a frame can be converted to 8 bits of standard dynamic range, and is not interlaced.

    Raises:
        UnusableClipError: with the reason ``hdr``, ``wide_gamut``, ``unknown_matrix`` or ``interlaced``.

    """
    transfer, primaries, matrix = (int(tag) for tag in (frame.color_trc, frame.color_primaries, frame.colorspace))
    brightness = HDR_TRANSFERS | LINEAR_TRANSFERS
    if transfer in brightness:
        raise _not_bt709("hdr", f"transfer {brightness[transfer]}")
    if matrix in HDR_MATRICES:
        raise _not_bt709("hdr", f"matrix {HDR_MATRICES[matrix]}")
    if transfer in UNSPECIFIED and any(frame.side_data.get(kind) is not None for kind in HDR_METADATA):
        raise _not_bt709("hdr", "metadata of an HDR display and no transfer")
    if primaries in WIDE_PRIMARIES:
        raise _not_bt709("wide_gamut", WIDE_PRIMARIES[primaries])
    if primaries in UNSPECIFIED and matrix in WIDE_MATRICES:
        raise _not_bt709("wide_gamut", WIDE_MATRICES[matrix])
    if matrix not in READABLE_MATRICES:
        raise _not_bt709("unknown_matrix", f"matrix {matrix} of ITU-T H.273")
    if frame.interlaced_frame or tags.is_interlaced:
        raise UnusableClipError("interlaced", "frames are made of two fields; deinterlace the clip first")


def _not_bt709(reason: str, detail: str) -> UnusableClipError:
    return UnusableClipError(reason, f"{detail}; convert the clip to BT.709 first")


def rgb(frame: "VideoFrame", **scaling: int | str) -> Picture:
    """The pixels of a frame as 8-bit RGB, transparent ones on white."""
    has_alpha = frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components)
    if not has_alpha:
        return frame.to_ndarray(format="rgb24", **scaling)
    pixels = frame.to_ndarray(format="rgba", **scaling)
    if (pixels[..., 3] == OPAQUE).all():
        return np.ascontiguousarray(pixels[..., :3])
    alpha = pixels[..., 3:].astype(np.float32) / OPAQUE
    return (pixels[..., :3] * alpha + OPAQUE * (1 - alpha) + 0.5).astype(np.uint8)
