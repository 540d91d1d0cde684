"""A glimpse of a clip, also of one that the pipeline refuses: its first picture, if any can be decoded."""

from fractions import Fraction
from pathlib import Path

from mcpipe.models.containers import UnusableClipError, opened, picture_stream
from mcpipe.models.protocols import Picture
from mcpipe.models.video import FrameReader, oriented


def first_frame(file: Path) -> Picture | None:
    """The first picture of a file as a viewer sees it; ``None`` if there is none or it is too large to be one."""
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
