"""A glimpse of a clip, also of one that the pipeline refuses: its first picture, if any can be decoded."""

from pathlib import Path

import numpy as np

from mcpipe.models.orientation import square_pixels, turned
from mcpipe.models.protocols import Picture
from mcpipe.models.video import LARGEST_FRAME_PX


def first_frame(file: Path) -> Picture | None:
    """The first picture of a file as a viewer sees it; ``None`` if there is none or it is too large to be one."""
    import av

    try:
        with av.open(str(file)) as container:
            for stream in container.streams.video[:1]:
                if stream.codec_context is None or stream.width * stream.height > LARGEST_FRAME_PX:
                    return None
                for frame in container.decode(stream):
                    if frame.width * frame.height > LARGEST_FRAME_PX:
                        return None
                    matrix = frame.side_data.get("DISPLAYMATRIX")
                    pixels = square_pixels(frame.to_ndarray(format="rgb24"), float(stream.sample_aspect_ratio or 1))
                    return turned(pixels, None if matrix is None else np.frombuffer(bytes(matrix), np.int32))
    except (av.error.FFmpegError, OSError, ValueError):
        return None
    return None
