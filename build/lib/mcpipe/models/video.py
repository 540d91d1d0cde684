"""Two frames of a video file, exact by presentation time, decoded by PyAV (FFmpeg).

The packets' time stamps are read first, without decoding; they say which frame is the first to be shown and which lies
in the middle. Frames that an edit list hides are not shown and do not count. Then frames are decoded in order up to
the middle one; all but the two are kept as thumbnails only, in which cuts are looked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

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


class UnusableClipError(Exception):
    """A file that is no usable clip, with the name of the reason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


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


def read_clip(file: Path, max_decoded: int) -> ClipFrames:
    """Decode what the pipeline wants of a clip; at most ``max_decoded`` frames, which bounds time and memory.

    Raises:
        UnusableClipError: with the reason ``unreadable``, ``no_video``, ``frame_too_large``, ``truncated``,
            ``too_short``, ``too_long``, ``damaged`` or ``size_changes``.

    """
    import av

    try:
        with av.open(str(file), options={"fflags": "+genpts"}) as container:
            timing = _timing(container, _picture_stream(container))
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
    except av.error.FFmpegError as error:
        raise UnusableClipError("unreadable", f"{type(error).__name__}: {error.strerror}") from error


def _picture_stream(container: "InputContainer") -> "VideoStream":
    """The first stream of moving pictures; a cover of a sound file is none."""
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise UnusableClipError("no_video", "the file has no video stream")
    context = streams[0].codec_context
    if context is None:
        raise UnusableClipError("unreadable", "no decoder for the video stream")
    if context.width * context.height > LARGEST_FRAME_PX:
        raise UnusableClipError("frame_too_large", f"{context.width} x {context.height} pixels")
    return streams[0]


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
    """Decode in presentation order up to the middle frame."""
    import av

    wanted = timing.times_s[timing.middle]
    with av.open(str(file), options={"fflags": "+genpts"}) as container:
        stream = _picture_stream(container)
        unit = stream.time_base or Fraction(1)
        thumbnails: list[Picture] = []
        initial: VideoFrame | None = None
        for frame in _shown(container, stream):
            thumbnails.append(_thumbnail(frame))
            if initial is None:
                initial = frame
            elif (frame.pts or 0) * unit >= wanted:
                _check_alike(initial, frame)
                return ClipFrames(
                    initial=_picture(initial, stream),
                    middle=_picture(frame, stream),
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


def _thumbnail(frame: "VideoFrame") -> Picture:
    return frame.to_ndarray(format="rgb24", width=THUMBNAIL_PX, height=THUMBNAIL_PX, interpolation="AREA")


def _picture(frame: "VideoFrame", stream: "VideoStream") -> Picture:
    """The frame as a viewer sees it: square pixels, upright."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    pixels = square_pixels(frame.to_ndarray(format="rgb24"), float(aspect))
    return turned(pixels, None if matrix is None else np.frombuffer(bytes(matrix), np.int32))
