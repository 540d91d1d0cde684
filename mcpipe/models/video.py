"""Two frames of a video file, exact by presentation time, decoded by PyAV (FFmpeg)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from mcpipe.models.protocols import Picture

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif"})
"""File name endings that are looked at."""

THUMBNAIL_PX = 32
"""Side of the small copies that are kept of every frame up to the middle one, to look for cuts."""

COMPLETE = 0.9
"""A file that ends before this part of the duration its header promises is truncated."""


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


def read_clip(file: Path) -> ClipFrames:
    """Decode what the pipeline wants of a clip.

    Raises:
        UnusableClipError: with the reason ``unreadable``, ``no_video``, ``truncated`` or ``too_short``.

    """
    import av

    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise UnusableClipError("no_video", "the file has no video stream")
            promised_s = (container.duration or 0) / av.time_base
            times = _presentation_times(container)
        if len(times) < 2:
            raise UnusableClipError("too_short", f"{len(times)} frame(s)")
        reached_s = float(times[-1] - times[0]) + float(np.median(np.diff(times)))
        if reached_s < COMPLETE * promised_s:
            raise UnusableClipError("truncated", f"frames end at {reached_s:.2f} s of {promised_s:.2f} s")
        middle = times[int(np.argmin(np.abs(times - (times[0] + times[-1]) / 2)))]
        return _decode(file, times, float(middle))
    except av.error.FFmpegError as error:
        raise UnusableClipError("unreadable", f"{type(error).__name__}: {error.strerror}") from error


def _presentation_times(container) -> Float[np.ndarray, " T"]:  # noqa: ANN001  the vendor's type is imported late
    stream = container.streams.video[0]
    return np.array(
        sorted(float(packet.pts * packet.time_base) for packet in container.demux(stream) if packet.pts is not None)
    )


def _decode(file: Path, times: Float[np.ndarray, " T"], middle_s: float) -> ClipFrames:
    """Decode in presentation order up to the middle frame."""
    import av
    import cv2

    initial: Picture | None = None
    thumbnails = []
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context.name
        for frame in container.decode(stream):
            if frame.time is None:
                continue
            picture = frame.to_ndarray(format="rgb24")
            thumbnails.append(cv2.resize(picture, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA))
            if initial is None:
                initial, first_s = picture, frame.time
            elif frame.time >= middle_s - 1e-6:
                return ClipFrames(
                    initial=initial,
                    middle=picture,
                    times_s=(first_s, frame.time),
                    num_frames=len(times),
                    duration_s=float(times[-1] - times[0]),
                    codec=codec,
                    thumbnails=np.stack(thumbnails),
                )
    raise UnusableClipError("truncated", f"no frame can be decoded at {middle_s:.2f} s")
