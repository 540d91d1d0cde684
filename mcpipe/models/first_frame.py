"""A glimpse of a clip, also of one that the pipeline refuses: its first picture, if any can be decoded."""

from pathlib import Path

from mcpipe.models.protocols import Picture
from mcpipe.models.video import LARGEST_FRAME_PX, UnusableClipError, opened, picture_stream, upright


def first_frame(file: Path) -> Picture | None:
    """The first picture of a file as a viewer sees it; ``None`` if there is none or it is too large to be one."""
    import av

    try:
        with opened(file) as container:
            stream = picture_stream(container)
            frame = next(container.decode(stream), None)
            if frame is None or frame.width * frame.height > LARGEST_FRAME_PX:
                return None
            return upright(frame, stream)
    except (av.error.FFmpegError, UnusableClipError, OSError, ValueError):
        return None
