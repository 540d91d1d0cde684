"""The first frame of a clip, also of a rejected clip, if it can be decoded."""

from fractions import Fraction
from pathlib import Path

from mcpipe.models.containers import UnusableClipError, opened, picture_stream
from mcpipe.models.protocols import Picture
from mcpipe.models.video import FrameReader, oriented


def first_frame(file: Path) -> Picture | None:
    """The first frame of a file as a viewer sees it; ``None`` if it cannot be decoded or is too large."""
    import av

    if not file.is_file():
        return None
    try:
        with opened(file) as container:
            stream = picture_stream(container)
            frame = next(FrameReader(container, stream, Fraction(1)).frames(), None)
            return None if frame is None else oriented(frame, stream)
    except (av.error.FFmpegError, UnusableClipError, OSError, ValueError):
        return None
