"""Video files of the world's clips, in the containers and codecs that footage comes in."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from mcpipe.core.sizes import Size

H264 = {"crf": "17", "preset": "veryfast", "x264-params": "mbtree=0"}
"""x264's macroblock tree reads memory that it has not written: with it, equal images may give unequal bytes."""

VP8 = {"crf": "6", "b": "2500000", "deadline": "realtime", "cpu-used": "-4"}
"""A negative ``cpu-used`` fixes libvpx's speed; with a positive one it follows the clock, and the bytes with it."""

FORMATS: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("mp4", "libx264", "yuv420p", H264),
    ("mkv", "libx264", "yuv420p", H264),
    ("mp4", "libx264", "yuv444p", H264),
    ("webm", "libvpx", "yuv420p", VP8),
    ("avi", "mpeg4", "yuv420p", {"b": "3000000"}),
    ("mov", "libx264", "yuv420p", H264 | {"bf": "2"}),
)
"""Container, codec, pixel format and encoder settings; clips take them in turn."""


def encode(file: Path, pictures: Iterable[np.ndarray], place: int, size: Size, fps: int) -> None:
    """Write RGB images of a size (width, height) as a video file in one of `FORMATS`; equal images give equal bytes."""
    _, codec, pixels, settings = FORMATS[place]
    with av.open(str(file), "w", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=fps, options=settings | {"flags": "+bitexact"})
        assert isinstance(stream, av.VideoStream)
        (stream.width, stream.height), stream.pix_fmt = size, pixels
        # More threads make some encoders split the image differently.
        stream.thread_count = 1
        stream.codec_context.time_base = Fraction(1, fps)
        for index, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
