"""Two frames of a video file, exact by presentation time, decoded by PyAV (FFmpeg).

The packets' time stamps are read first, without decoding; they say which frame is the first to be shown and which lies
in the middle. Frames that an edit list hides are not shown and do not count, nor do those before the first one that can
be decoded. Then frames are decoded in order up to the middle one; all but the two are kept as thumbnails only, in which
cuts are looked for.

Only containers of `CONTAINERS` are opened: a playlist would open other files, whose changes nobody would notice.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from mcpipe.core.records import RejectionError
from mcpipe.models.orientation import square_pixels, turned
from mcpipe.models.protocols import Picture

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

THUMBNAIL_PX = 32
"""Side of the small copies that are kept of every frame up to the middle one, to look for cuts."""

COMPLETE = 0.9
"""A file that ends before this part of the duration its header promises is truncated."""

LARGEST_FRAME_PX = 64_000_000
"""Pixels of a frame, about 8K twice over; larger ones are faults of the header and would only fill the memory."""


CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,mxf,dv,nut,ivf,h264,hevc,av1,"
    "obu,rm,wtv,swf,vc1,apng,m4v,cavsvideo,dirac,yuv4mpegpipe"
)
"""FFmpeg's names of the containers that are read; none of them refers to other files."""

SUFFIXES = frozenset({".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".mts", ".ts", ".webm", ".wmv"})
"""Endings of a file that claims to be a video: if nothing reads it, it is broken rather than something else."""

OPAQUE = 255
"""Alpha of an opaque pixel."""

HD_LINES = 720
"""Lines from which an untagged frame is taken for BT.709 (ITU-R), below for BT.601, as players do."""

HDR_TRANSFERS = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}
LINEAR_TRANSFERS = {8: "linear light", 9: "logarithmic", 10: "logarithmic", 17: "SMPTE ST 428-1"}
WIDE_PRIMARIES = {9: "BT.2020"}
"""Values of ITU-T H.273 whose frames look washed out or wrongly lit if read as 8-bit pictures."""


class UnusableClipError(RejectionError):
    """A file that is no usable clip."""


@dataclass(frozen=True)
class ClipFrames:
    """The initial and the middle frame of a clip, and thumbnails of all frames from the one to the other."""

    initial: Picture
    middle: Picture
    times_s: tuple[float, float]
    """Presentation times of the two."""
    duration_s: float
    """From the first to the last presentation time."""
    num_frames: int
    codec: str
    thumbnails: UInt8[np.ndarray, "T S S 3"]


@dataclass(frozen=True)
class Timing:
    """When the frames of a clip are shown."""

    times_s: list[Fraction]
    """Presentation times, ascending."""
    end_s: Fraction
    """When the last frame goes."""
    promised_s: float
    """Length of the video that the header promises; 0 if it promises nothing."""

    @property
    def middle(self) -> int:
        """Index of the frame nearest to the middle of the first and the last time; of two, the later one."""
        centre = (self.times_s[0] + self.times_s[-1]) / 2
        return min(range(len(self.times_s)), key=lambda i: (abs(self.times_s[i] - centre), -i))

    def from_time(self, time_s: Fraction) -> "Timing":
        """The timing of the frames from a time on; a stream that is cut begins with some that cannot be decoded."""
        times = [time for time in self.times_s if time >= time_s] or self.times_s[-1:]
        return replace(self, times_s=times)


def read_clip(file: Path, max_decoded: int) -> ClipFrames:
    """Decode what the pipeline wants of a clip; at most ``max_decoded`` frames, which bounds time and memory.

    Raises:
        UnusableClipError: with the reason ``not_a_video``, ``unreadable``, ``no_video``, ``frame_too_large``,
            ``truncated``, ``too_short``, ``too_long``, ``damaged``, ``size_changes``, ``hdr``, ``wide_gamut``,
            ``interlaced`` or ``hidden_alpha``.

    """
    import av

    try:
        with opened(file) as container:
            timing = _timing(container, picture_stream(container))
            late_s = _start_s(container)
        if len(timing.times_s) < 2:
            raise UnusableClipError("too_short", f"{len(timing.times_s)} frame(s)")
        reached_s = float(timing.end_s - timing.times_s[0]) + late_s
        if reached_s < COMPLETE * timing.promised_s:
            raise UnusableClipError("truncated", f"frames end at {reached_s:.2f} s of {timing.promised_s:.2f} s")
        if timing.middle >= max_decoded:
            raise UnusableClipError(
                "too_long", f"{timing.middle} frames before the middle one, at most {max_decoded} are decoded"
            )
        return _decode(file, timing)
    except av.error.ArgumentError as error:
        raise UnusableClipError("not_a_video", "a playlist, a picture or another kind of file") from error
    except av.error.FFmpegError as error:
        reason = "unreadable" if file.suffix.lower() in SUFFIXES else "not_a_video"
        raise UnusableClipError(reason, f"{type(error).__name__}: {error.strerror}") from error


def opened(file: Path) -> "InputContainer":
    """A container of a kind in `CONTAINERS`, opened as a file whatever its name looks like.

    Raises:
        ArgumentError: the file is of another kind.
        FFmpegError: it cannot be read.
    """
    import av

    options = {"fflags": "+genpts", "format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    # An absolute path: of a relative one with a colon, FFmpeg would take the beginning for a protocol.
    return av.open(os.path.abspath(file), options=options)  # noqa: PTH100  a link is not followed


def picture_stream(container: "InputContainer") -> "VideoStream":
    """The stream of moving pictures that a player shows: the default one, else the largest; covers are none.

    Raises:
        UnusableClipError: there is none, nothing decodes it, its frames are too large, or it hides an alpha channel.
    """
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & still]
    if not streams:
        raise UnusableClipError("no_video", "the file has no video stream")
    chosen = max(streams, key=lambda s: (bool(s.disposition & Disposition.default), _area(s), -s.index))
    if chosen.codec_context is None:
        raise UnusableClipError("unreadable", "no decoder for the video stream")
    if _area(chosen) > LARGEST_FRAME_PX:
        context = chosen.codec_context
        raise UnusableClipError("frame_too_large", f"{context.width} x {context.height} pixels")
    if chosen.metadata.get("alpha_mode") == "1":
        raise UnusableClipError("hidden_alpha", "the alpha channel is a stream of its own that the decoder leaves out")
    return chosen


def _area(stream: "VideoStream") -> int:
    context = stream.codec_context
    return 0 if context is None else context.width * context.height


def _timing(container: "InputContainer", stream: "VideoStream") -> Timing:
    unit = stream.time_base or Fraction(1)
    shown = sorted(
        (packet.pts, packet.duration or 0)
        for packet in container.demux(stream)
        if packet.pts is not None and packet.size and not packet.is_discard
    )
    if not shown:
        return Timing([], Fraction(0), 0.0)
    times = [time * unit for time, _ in shown]
    step = Fraction(float(np.median(np.diff([float(time) for time in times])))) if len(times) > 1 else Fraction(0)
    return Timing(times, times[-1] + max(shown[-1][1] * unit, step), _promised_s(container, stream))


def _promised_s(container: "InputContainer", stream: "VideoStream") -> float:
    """Duration of the video by its header; sound may be longer than the picture."""
    import av

    if stream.duration:
        return float(stream.duration * (stream.time_base or 0))
    if len(container.streams) > 1 or not container.duration:
        return 0.0
    return float(container.duration / av.time_base)


def _start_s(container: "InputContainer") -> float:
    """When the first thing in a Matroska file is shown, which its duration counts from 0; 0 for other formats."""
    import av

    return max(container.start_time or 0, 0) / av.time_base if "matroska" in container.format.name else 0.0


def _decode(file: Path, timing: Timing) -> ClipFrames:
    """Decode in presentation order up to the middle one of the frames that can be decoded."""
    wanted = timing.times_s[timing.middle]
    with opened(file) as container:
        stream = picture_stream(container)
        unit = stream.time_base or Fraction(1)
        thumbnails: list[Picture] = []
        initial: VideoFrame | None = None
        for frame in _shown(container, stream):
            thumbnails.append(_thumbnail(frame))
            if initial is None:
                initial = frame
                timing = timing.from_time((frame.pts or 0) * unit)
                wanted = timing.times_s[timing.middle]
            elif (frame.pts or 0) * unit >= wanted:
                _check_alike(initial, frame)
                _check_colours(frame)
                return ClipFrames(
                    initial=upright(initial, stream),
                    middle=upright(frame, stream),
                    times_s=(float(initial.time or 0), float(frame.time or 0)),
                    num_frames=len(timing.times_s),
                    duration_s=float(timing.times_s[-1] - timing.times_s[0]),
                    codec=stream.codec_context.name,
                    thumbnails=np.stack(thumbnails),
                )
    raise UnusableClipError("truncated", f"no frame can be decoded at {float(wanted):.2f} s")


def _shown(container: "InputContainer", stream: "VideoStream") -> "Iterator[VideoFrame]":
    """Decoded frames that have a time, in the order of presentation."""
    for frame in container.decode(stream):
        if frame.pts is None:
            continue
        if frame.width * frame.height > LARGEST_FRAME_PX:
            raise UnusableClipError("frame_too_large", f"{frame.width} x {frame.height} pixels")
        yield frame


def _check_alike(initial: "VideoFrame", middle: "VideoFrame") -> None:
    if initial.is_corrupt or middle.is_corrupt:
        raise UnusableClipError("damaged", f"the {'initial' if initial.is_corrupt else 'middle'} frame is damaged")
    if (initial.width, initial.height) != (middle.width, middle.height):
        sizes = f"{initial.width} x {initial.height}, later {middle.width} x {middle.height} pixels"
        raise UnusableClipError("size_changes", sizes)


def _check_colours(frame: "VideoFrame") -> None:
    """Refuse what cannot be read as an 8-bit picture of standard dynamic range, and combed pictures."""
    transfer, primaries = int(frame.color_trc or 0), int(frame.color_primaries or 0)
    if transfer in HDR_TRANSFERS:
        raise UnusableClipError("hdr", f"transfer {HDR_TRANSFERS[transfer]}; convert the clip to BT.709 first")
    if transfer in LINEAR_TRANSFERS:
        raise UnusableClipError("hdr", f"transfer {LINEAR_TRANSFERS[transfer]}; convert the clip to BT.709 first")
    if primaries in WIDE_PRIMARIES:
        raise UnusableClipError("wide_gamut", f"{WIDE_PRIMARIES[primaries]}; convert the clip to BT.709 first")
    if frame.interlaced_frame:
        raise UnusableClipError("interlaced", "frames are made of two fields; deinterlace the clip first")


def _thumbnail(frame: "VideoFrame") -> Picture:
    return rgb(frame, width=THUMBNAIL_PX, height=THUMBNAIL_PX, interpolation="AREA")


def rgb(frame: "VideoFrame", **scaling: int | str) -> Picture:
    """The pixels of a frame as 8-bit RGB, transparent ones on white; untagged HD is BT.709, untagged SD BT.601."""
    from av.video.reformatter import Colorspace

    untagged_hd = frame.colorspace not in list(Colorspace) and frame.height >= HD_LINES and not frame.format.is_rgb
    source = {"src_colorspace": Colorspace.ITU709} if untagged_hd else {}
    has_alpha = frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components)
    if not has_alpha:
        return frame.to_ndarray(format="rgb24", **source, **scaling)
    pixels = frame.to_ndarray(format="rgba", **source, **scaling)
    if (pixels[..., 3] == OPAQUE).all():
        return np.ascontiguousarray(pixels[..., :3])
    alpha = pixels[..., 3:].astype(np.float32) / OPAQUE
    return (pixels[..., :3] * alpha + OPAQUE * (1 - alpha) + 0.5).astype(np.uint8)


def upright(frame: "VideoFrame", stream: "VideoStream") -> Picture:
    """The frame as a viewer sees it: RGB, square pixels, upright."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    turns = None if matrix is None else np.frombuffer(bytes(matrix), np.int32)
    return turned(square_pixels(rgb(frame), float(aspect)), turns)
