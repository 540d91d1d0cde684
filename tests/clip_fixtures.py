"""Small clips with given headers, for tests of what is read of them."""

from fractions import Fraction

import av
import numpy as np
import pytest
from imports import ROOT

from mcpipe.models.video import UnusableClipError, read_clip

CASES = ROOT.parent / "shared" / "cases" / "clips"
RED = (200, 40, 40)
TOLERANCE = 4
"""Levels by which a coded colour may differ."""


def painted(size, colour, number=0):
    """A picture of one colour whose upper edge grows with its number."""
    picture = np.full((*size, 3), colour, np.uint8)
    picture[: 4 + number] = 255 - np.array(colour, np.uint8)
    return picture


def add(container, pictures, codec="libx264", pixels="yuv420p", matrix=None, options=None, **tags):
    """Append a stream of pictures; ``matrix`` converts them, ``tags`` are what the header says."""
    stream = container.add_stream(codec, rate=10, options=options or {"crf": "1"} if codec == "libx264" else options)
    stream.height, stream.width = pictures[0].shape[:2]
    stream.pix_fmt = pixels
    for name, value in tags.items():
        setattr(stream.codec_context, name, value)
    return stream, [(picture, matrix) for picture in pictures]


def mux(container, *streams):
    """Encode the pictures of all streams in turn."""
    for number in range(len(streams[0][1])):
        for stream, pictures in streams:
            picture, matrix = pictures[number]
            frame = av.VideoFrame.from_ndarray(picture, format="rgba" if picture.shape[2] == 4 else "rgb24")
            frame = frame.reformat(format=stream.pix_fmt, dst_colorspace=matrix)
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
    for stream, _ in streams:
        container.mux(stream.encode(None))


def clip(file, size=(64, 96), container_format=None, number=8, **settings):
    """A clip of red pictures in a file, which is returned."""
    with av.open(str(file), "w", format=container_format) as container:
        mux(container, add(container, [painted(size, RED, n) for n in range(number)], **settings))
    return file


def is_red(picture):
    """Whether a picture has the colour of `clip` at its lower right."""
    return np.abs(picture[-1, -1].astype(int) - RED).max() <= TOLERANCE


def reason(file):
    """Why a clip is refused."""
    with pytest.raises(UnusableClipError) as error:
        read_clip(file, 100)
    return error.value.reason
