"""The shape of a target: the square, or the one of several that shows the people largest.

With ``aspect: buckets`` every clip gets the shape in which the least of its frame has to be shown:

1. of all shapes, the square among them, whose smallest rectangle inside the frame holds everybody, the one with the
   smallest rectangle;
2. with the crop "faces", else the one whose largest rectangle inside the frame holds all faces with shoulders and the
   largest least share of a body;
3. else the square of `mcpipe.curate.windows.target_window`, which may reach over the frame's edges, or the refusal.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool, Float
from pydantic import AfterValidator

from mcpipe.core.params import TakenFrom
from mcpipe.core.sizes import Size, size_of
from mcpipe.curate.windows import (
    TARGET_MARGIN,
    Crop,
    Window,
    body_shares,
    faces_window,
    heads,
    inside,
    square_window,
    target_window,
)

Aspect = Literal["square", "buckets"]
"""Whether all targets are squares, or have one of several shapes."""


def _named(text: str) -> str:
    size_of(text)
    return text


Bucket = Annotated[str, AfterValidator(_named)]
"""A size such as ``640x480``."""
AspectMode = Annotated[Aspect, TakenFrom("samples.aspect")]
Buckets = Annotated[list[Bucket], TakenFrom("samples.buckets")]


def shapes_of(aspect: Aspect, buckets: Sequence[str]) -> tuple[Size, ...]:
    """The shapes of targets beside the square; none if all are squares."""
    return tuple(map(size_of, buckets)) if aspect == "buckets" else ()


def target_frame(  # noqa: PLR0913  the people of a frame, and three settings
    masks: Bool[np.ndarray, "N H W"],
    bodies: Float[np.ndarray, "N 4"],
    faces: Float[np.ndarray, "N 4"],
    crop: Crop,
    min_body: float,
    shapes: Sequence[Size],
) -> tuple[Window, Size | None]:
    """The window of a frame that becomes the target, and its shape out of ``shapes``, or ``None`` for the square.

    The first five arguments are those of `mcpipe.curate.windows.target_window`.

    Raises:
        RejectionError: ``no_square_holds_all``.
    """
    height, width = masks.shape[1:]
    every = (None, *shapes) if shapes else ()
    whole = [(window, shape) for shape in every if (window := everyone_window(bodies, height, width, shape))]
    if whole:
        return min(whole, key=lambda pair: pair[0].width * pair[0].height)
    if crop == "faces":
        held = heads(bodies, faces)
        parts = [(faces_window(masks, held, largest(shape, height, width)), shape) for shape in every]
        scored = [(body_shares(masks, window).min(), window, shape) for window, shape in parts if window]
        share, window, shape = max(scored, key=lambda part: part[0], default=(0.0, None, None))
        if window is not None and share >= min_body:
            return window, shape
    return target_window(masks, bodies, faces, crop, min_body), None


def everyone_window(boxes: Float[np.ndarray, "N 4"], height: int, width: int, shape: Size | None) -> Window | None:
    """The smallest window of a shape inside the frame that holds all boxes with a margin, where the frame has it.

    ``None`` stands for the square; there is no window if the frame has none that holds them.
    """
    if shape is None:
        square = square_window(boxes, height, width)
        return square if square is not None and inside(square, height, width) else None
    low, high = np.floor(boxes[:, :2].min(axis=0)), np.ceil(boxes[:, 2:].max(axis=0))
    low, high = np.clip(low, 0, (width, height)), np.clip(high, 0, (width, height))
    needed = float(((high - low) / shape).max())
    most = min(width / shape[0], height / shape[1])
    if needed > most:
        return None
    size = _scaled(shape, min(needed * TARGET_MARGIN, most), height, width)
    corner = np.clip(np.round((low + high - size) / 2), 0, np.array((width, height)) - size)
    return Window(int(corner[0]), int(corner[1]), *size)


def largest(shape: Size | None, height: int, width: int) -> Size:
    """Width and height of the largest window of a shape, or square, in a frame."""
    if shape is None:
        return min(height, width), min(height, width)
    return _scaled(shape, min(width / shape[0], height / shape[1]), height, width)


def _scaled(shape: Size, factor: float, height: int, width: int) -> Size:
    """A shape times a factor in whole pixels, rounded up, at most the frame."""
    return min(int(np.ceil(shape[0] * factor)), width), min(int(np.ceil(shape[1] * factor)), height)
