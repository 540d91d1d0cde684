"""Two frames of a video file, exact by presentation time, decoded by PyAV (FFmpeg).

The packets' time stamps are read first, without decoding; they determine the first and the middle frame. Frames that an
edit list hides do not count. Then frames are decoded in order up to the middle one; all but the two are kept as
thumbnails only, for the detection of cuts. The rest is decoded, too, to find the last frame that can be decoded; frames
that cannot be decoded, at the beginning or the end, do not count.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from mcpipe.models.colours import Tags, check_colours, rgb
from mcpipe.models.containers import (
    LARGEST_FRAME_PX,
    UnusableClipError,
    has_alpha_beside,
    hidden_alpha,
    opened,
    picture_stream,
    unread,
)
from mcpipe.models.orientation import square_pixels, turned
from mcpipe.models.protocols import Picture

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

THUMBNAIL_PX = 32
"""Side of the thumbnails of all frames up to the middle one, for the detection of cuts."""

COMPLETE = 0.9
"""Minimum part of the duration in the header or the packets that frames cover; otherwise the file is truncated."""

UNKNOWN_RATE = 25
"""Frames per second of a bare stream without a frame rate, FFmpeg's default."""


@dataclass(frozen=True)
class ClipFrames:
    """The initial and the middle frame of a clip, and thumbnails of all frames between them, both included."""

    initial: Picture
    middle: Picture
    times_s: tuple[float, float]
    """Presentation times of the initial and the middle frame."""
    duration_s: float
    """Time from the first to the last presentation time."""
    num_frames: int
    codec: str
    thumbnails: UInt8[np.ndarray, "T S S 3"]


@dataclass(frozen=True)
class Timing:
    """Presentation times of a clip."""

    times_s: list[Fraction]
    """Ascending presentation times of all frames."""
    end_s: Fraction
    """End of the last frame."""
    promised_s: float
    """Duration in the header; 0 if the header has none."""
    step_s: Fraction | None = None
    """Time from frame to frame of a bare stream, which has no time stamps; `None` for others."""

    @property
    def middle(self) -> int:
        """Index of the frame nearest to the middle of the first and the last time; the later one of two."""
        centre = (self.times_s[0] + self.times_s[-1]) / 2
        return min(range(len(self.times_s)), key=lambda i: (abs(self.times_s[i] - centre), -i))

    def from_time(self, time_s: Fraction) -> "Timing":
        """The timing of the frames from a time on; a cut stream begins with frames that cannot be decoded."""
        times = [time for time in self.times_s if time >= time_s] or self.times_s[-1:]
        return replace(self, times_s=times)

    def up_to(self, time_s: Fraction) -> "Timing":
        """The timing of the frames up to a time, after which frames cannot be decoded.

        Raises:
            UnusableClipError: too much of the clip cannot be decoded (``truncated``).

        """
        if time_s >= self.times_s[-1]:
            return self
        times = [time for time in self.times_s if time <= time_s] or self.times_s[:1]
        end_s = self.times_s[len(times)]
        decoded_s, length_s = float(end_s - times[0]), float(self.end_s - times[0])
        if decoded_s < COMPLETE * length_s:
            raise UnusableClipError("truncated", f"no frame can be decoded after {decoded_s:.2f} s of {length_s:.2f} s")
        return replace(self, times_s=times, end_s=end_s)


def read_clip(file: Path, max_decoded: int) -> ClipFrames:
    """Decode the frames of a clip that the pipeline uses.

    At most ``max_decoded`` frames are decoded to the middle one, which bounds time and memory.

    Raises:
        UnusableClipError: with the reason ``not_a_video``, ``unreadable``, ``no_video``, ``frame_too_large``,
            ``truncated``, ``too_short``, ``too_long``, ``damaged``, ``size_changes``, ``hdr``, ``wide_gamut``,
            ``unknown_matrix``, ``interlaced`` or ``hidden_alpha``.

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
    except av.error.FFmpegError as error:
        raise unread(file, error) from error


def _timing(container: "InputContainer", stream: "VideoStream") -> Timing:
    unit = stream.time_base or Fraction(1)
    packets = [
        (packet.pts, packet.duration or 0)
        for packet in container.demux(stream)
        if packet.size and not packet.is_discard
    ]
    displayed = sorted((time, duration) for time, duration in packets if time is not None)
    if not displayed:
        step = 1 / Fraction(stream.guessed_rate or UNKNOWN_RATE)
        return Timing([number * step for number in range(len(packets))], len(packets) * step, 0.0, step)
    times = [time * unit for time, _ in displayed]
    step = Fraction(float(np.median(np.diff([float(time) for time in times])))) if len(times) > 1 else Fraction(0)
    return Timing(times, times[-1] + max(displayed[-1][1] * unit, step), _promised_s(container, stream))


def _promised_s(container: "InputContainer", stream: "VideoStream") -> float:
    """Duration of the video by its header; sound may be longer than the image."""
    import av

    if stream.duration:
        return float(stream.duration * (stream.time_base or 0))
    if len(container.streams) > 1 or not container.duration:
        return 0.0
    return float(container.duration / av.time_base)


def _start_s(container: "InputContainer") -> float:
    """Start of a Matroska file, whose duration counts from 0; 0 for other formats."""
    import av

    return max(container.start_time or 0, 0) / av.time_base if "matroska" in container.format.name else 0.0


def _decode(file: Path, timing: Timing) -> ClipFrames:
    """Decode in presentation order up to the middle one of the frames that can be decoded."""
    with opened(file) as container:
        stream = picture_stream(container)
        reader, unit = FrameReader(container, stream, timing.step_s), stream.time_base or Fraction(1)
        middle_s = timing.times_s[timing.middle]
        thumbnails: list[Picture] = []
        initial: VideoFrame | None = None
        for frame in (frames := reader.frames()):
            if initial is None:
                initial = frame
                check_colours(frame, reader.tags)
                timing = timing.from_time((frame.pts or 0) * unit)
                middle_s = timing.times_s[timing.middle]
            thumbnails.append(_thumbnail(frame))
            if frame is initial or (frame.pts or 0) * unit < middle_s:
                continue
            _check_alike(initial, frame)
            check_colours(frame, reader.tags)
            reader.become_tolerant()
            complete = timing.up_to(_last_pts(frames, frame) * unit)
            if complete.middle < timing.middle:
                return _decode(file, complete)
            return ClipFrames(
                initial=oriented(initial, stream),
                middle=oriented(frame, stream),
                times_s=(float(initial.time or 0), float(frame.time or 0)),
                num_frames=len(complete.times_s),
                duration_s=float(complete.times_s[-1] - complete.times_s[0]),
                codec=stream.codec_context.name,
                thumbnails=np.stack(thumbnails),
            )
    raise UnusableClipError("truncated", f"no frame can be decoded at {float(middle_s):.2f} s")


class FrameReader:
    """Reader of a stream's decoded frames with presentation times, in the order of presentation.

    Packets that cannot be decoded are skipped before the first frame, and after `become_tolerant`.
    """

    def __init__(self, container: "InputContainer", stream: "VideoStream", step_s: Fraction | None) -> None:
        """Read ``stream`` from its current position; ``step_s`` is the time between frames without time stamps."""
        self.tags = Tags.of(stream)
        self._step_s, self._count = step_s, 0
        self._container, self._stream = container, stream
        self._is_strict = False

    def become_tolerant(self) -> None:
        """Skip packets that cannot be decoded from now on."""
        self._is_strict = False

    def frames(self) -> "Iterator[VideoFrame]":
        """Go through the stream once.

        Raises:
            FFmpegError: a packet after the first frame, or every packet, cannot be decoded.
            UnusableClipError: a frame is too large, or has a separate alpha channel.

        """
        import av

        fault: av.error.InvalidDataError | None = None
        has_begun = False
        for packet in self._container.demux(self._stream):
            if not has_begun and has_alpha_beside(packet, self._stream):
                raise hidden_alpha()
            try:
                frames = packet.decode()
            except av.error.InvalidDataError as error:
                if self._is_strict:
                    raise
                fault = error
                continue
            for frame in self._timed(frames):
                self._is_strict = self._is_strict or not has_begun
                has_begun = True
                yield frame
        if fault is not None and not has_begun:
            raise fault

    def _timed(self, frames: "Sequence[VideoFrame]") -> "Iterator[VideoFrame]":
        for frame in frames:
            if frame.pts is None and self._step_s is not None:
                frame.time_base = self._stream.time_base or Fraction(1)
                frame.pts = round(self._count * self._step_s / frame.time_base)
            if frame.pts is None:
                continue
            self._count += 1
            if frame.width * frame.height > LARGEST_FRAME_PX:
                raise UnusableClipError("frame_too_large", f"{frame.width} x {frame.height} pixels")
            self.tags.complete(frame)
            yield frame


def _last_pts(frames: "Iterator[VideoFrame]", middle: "VideoFrame") -> int:
    """Presentation time of the last undamaged frame after the middle one, in the stream's unit."""
    return max([middle.pts or 0, *(frame.pts or 0 for frame in frames if not frame.is_corrupt)])


def _check_alike(initial: "VideoFrame", middle: "VideoFrame") -> None:
    if initial.is_corrupt or middle.is_corrupt:
        raise UnusableClipError("damaged", f"the {'initial' if initial.is_corrupt else 'middle'} frame is damaged")
    if (initial.width, initial.height) != (middle.width, middle.height):
        sizes = f"{initial.width} x {initial.height}, later {middle.width} x {middle.height} pixels"
        raise UnusableClipError("size_changes", sizes)


def _thumbnail(frame: "VideoFrame") -> Picture:
    return rgb(frame, width=THUMBNAIL_PX, height=THUMBNAIL_PX, interpolation="AREA")


def oriented(frame: "VideoFrame", stream: "VideoStream") -> Picture:
    """The frame as a viewer sees it: RGB, square pixels, upright."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    turns = None if matrix is None else np.frombuffer(bytes(matrix), np.int32)
    return turned(square_pixels(rgb(frame), float(aspect)), turns)
