"""The square that becomes the target: which part of a frame shows the people of a sample.

Three squares are tried in this order, and the first that fits is taken:

1. the smallest inside the frame that holds everybody;
2. with the crop "faces", the largest inside the frame, which holds all faces with hair and shoulders and, in the
   direction in which the frame is longer, as much as possible of the body of which it holds the least;
3. one that holds everybody and reaches over two edges of the frame.
"""

from typing import Annotated, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from mcpipe.core.params import TakenFrom
from mcpipe.core.records import RejectionError
from mcpipe.core.sizes import Size

TARGET_MARGIN = 1.04
"""Side of the target square in units of the longer side of the subjects' common box, where the frame allows it."""
LARGEST_PADDING = 0.45
"""Maximum part of the target square outside the frame, above and below: two people side by side are wider than a 16:9
frame is high. Wider scenes are rejected."""
HEAD_MARGIN = 1.1
"""Side of a head in units of the face's longer side."""
SHOULDERS = 0.75
"""Shoulders reach so far below the face, in units of its longer side."""

Crop = Literal["everyone", "faces"]
"""What the target square has to hold: all bodies, or all faces and parts of the bodies."""
CropMode = Annotated[Crop, TakenFrom("samples.crop")]
MinBody = Annotated[float, Field(ge=0, le=1), TakenFrom("samples.min_body")]


class Window(NamedTuple):
    """A rectangle in pixels of the frame, most often a square; it may reach over the frame's edges."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def square(cls, x: int, y: int, side: int) -> "Window":
        """A square window."""
        return cls(x, y, side, side)


def target_window(
    masks: Bool[np.ndarray, "N H W"],
    bodies: Float[np.ndarray, "N 4"],
    faces: Float[np.ndarray, "N 4"],
    crop: Crop,
    min_body: float,
) -> Window:
    """The target square of a frame with people who have these masks, boxes of bodies and boxes of faces.

    ``min_body`` is the minimum share of every mask inside a square that holds the faces, in [0, 1].

    Raises:
        RejectionError: ``no_square_holds_all``.
    """
    height, width = masks.shape[1:]
    everyone = square_window(bodies, height, width)
    if everyone is not None and inside(everyone, height, width):
        return everyone
    fault = "the people stand wider than the frame is high"
    if crop == "faces":
        window = faces_window(masks, heads(bodies, faces), (min(height, width),) * 2)
        share = 0.0 if window is None else body_shares(masks, window).min()
        if window is not None and share >= min_body:
            return window
        fault = "the faces stand wider than the frame is high" if window is None else f"it holds {share:.0%} of a body"
    if everyone is None:
        raise RejectionError("no_square_holds_all", fault)
    return everyone


def square_window(boxes: Float[np.ndarray, "N 4"], height: int, width: int) -> Window | None:
    """The square that holds all boxes, centred on them; ``None`` if there is no such square.

    It lies inside the frame if a square inside the frame holds everybody. Otherwise it is as long as the frame allows
    and reaches over the other two edges by equal amounts, at most by `LARGEST_PADDING`.
    """
    low, high = np.floor(boxes[:, :2].min(axis=0)), np.ceil(boxes[:, 2:].max(axis=0))
    low, high = np.clip(low, 0, (width, height)), np.clip(high, 0, (width, height))
    needed, shorter, longer = float((high - low).max()), min(height, width), max(height, width)
    target_side = int(np.ceil(needed * TARGET_MARGIN))
    side = min(target_side, shorter) if needed <= shorter else min(target_side, longer)
    if side * (1 - LARGEST_PADDING) > shorter:
        return None
    room = np.array((width, height)) - side
    corner = np.where(room >= 0, np.clip(np.round((low + high - side) / 2), 0, np.maximum(room, 0)), room // 2)
    return Window.square(int(corner[0]), int(corner[1]), side)


def heads(bodies: Float[np.ndarray, "N 4"], faces: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
    """The boxes of heads and shoulders, as far as the boxes of the bodies go; faces are always inside."""
    longer = (faces[:, 2:] - faces[:, :2]).max(axis=1, keepdims=True)
    centre = (faces[:, :2] + faces[:, 2:]) / 2
    low, high = centre - HEAD_MARGIN / 2 * longer, centre + HEAD_MARGIN / 2 * longer
    high[:, 1] = np.maximum(high[:, 1], faces[:, 3] + SHOULDERS * longer[:, 0])
    low, high = np.maximum(low, bodies[:, :2]), np.minimum(high, bodies[:, 2:])
    return np.concatenate([np.minimum(low, faces[:, :2]), np.maximum(high, faces[:, 2:])], axis=1)


def faces_window(masks: Bool[np.ndarray, "N H W"], held: Float[np.ndarray, "N 4"], size: Size) -> Window | None:
    """The window inside the frame that holds all boxes and most of the bodies; ``None`` if none holds all.

    ``size`` is its width and height; one of them is the frame's, so that it can be moved in one direction only.

    Of the possible places it takes the one with the largest of the least shares of the masks, of equal ones the one
    nearest to the middle of the boxes.
    """
    height, width = masks.shape[1:]
    axis = int(size[1] < height)
    side, room = size[axis], (width, height)[axis] - size[axis]
    low = int(np.floor(held[:, axis].min().clip(0, side + room)))
    high = int(np.ceil(held[:, 2 + axis].max().clip(0, side + room)))
    places = np.arange(max(high - side, 0), min(low, room) + 1)
    if not len(places):
        return None
    along = masks.sum(axis=2 if axis else 1)
    passed = np.concatenate([np.zeros((len(masks), 1), int), along.cumsum(axis=1)], axis=1)
    shares = (passed[:, places + side] - passed[:, places]) / np.maximum(passed[:, -1:], 1)
    least = shares.min(axis=0)
    best = places[least == least.max()]
    place = int(best[np.abs(best + side / 2 - (low + high) / 2).argmin()])
    return Window(0, place, *size) if axis else Window(place, 0, *size)


def body_shares(masks: Bool[np.ndarray, "N H W"], window: Window) -> Float[np.ndarray, " N"]:
    """The share of each mask inside a window, in [0, 1]; 0 of an empty mask."""
    x, y, width, height = window
    held = masks[:, max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)].sum(axis=(1, 2))
    return held / np.maximum(masks.sum(axis=(1, 2)), 1)


def inside(window: Window, height: int, width: int) -> bool:
    """Whether a window lies in a frame."""
    return min(window[:2]) >= 0 and window.x + window.width <= width and window.y + window.height <= height
