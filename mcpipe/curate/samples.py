"""From verified frames to training samples: references, square target, masks, and a split by identity."""

from collections.abc import Hashable, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from pydantic import Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mcpipe.params import Params

FACE_MARGIN = 1.5
"""Side of a face reference in units of the face's longer side: room for hair and chin."""
TARGET_MARGIN = 1.04
"""Side of the target square in units of the longer side of the subjects' common box, where the frame allows it."""
WHITE = (255, 255, 255)


class SamplesParams(Params):
    """How samples are cut and split."""

    image_size: int = Field(ge=16)
    """Side of the target in pixels (paper: 512)."""
    reference_size: int = Field(ge=16)
    """Side of a face reference in pixels (paper: 320)."""
    portrait_size: int = Field(ge=16)
    """Side of a whole-body reference on white, in pixels."""
    same_identity: float = Field(ge=-1, le=1)
    """Cosine from which people of two clips count as one identity, so that both clips fall into one split."""
    val_fraction: float = Field(ge=0, lt=1)
    """Part of the samples that is held out."""
    seed: int
    """Of the split."""
    records_per_shard: int = Field(ge=1)


def square_window(boxes: Float[np.ndarray, "N 4"], height: int, width: int) -> tuple[int, int, int] | None:
    """The square ``(x, y, side)`` inside the frame that holds all boxes, centred on them; ``None`` if there is none."""
    low, high = np.floor(boxes[:, :2].min(axis=0)), np.ceil(boxes[:, 2:].max(axis=0))
    low, high = np.clip(low, 0, (width, height)), np.clip(high, 0, (width, height))
    needed = float((high - low).max())
    side = int(min(np.ceil(needed * TARGET_MARGIN), height, width))
    if side < needed:
        return None
    corner = np.clip(np.round((low + high - side) / 2), 0, (width - side, height - side)).astype(int)
    return int(corner[0]), int(corner[1]), side


def crop_square(
    picture: UInt8[np.ndarray, "H W 3"], window: tuple[int, int, int], size: int
) -> UInt8[np.ndarray, "S S 3"]:
    """The window of a picture, resized."""
    x, y, side = window
    return resize(picture[y : y + side, x : x + side], size)


def crop_masks(masks: Bool[np.ndarray, "N H W"], window: tuple[int, int, int], size: int) -> Bool[np.ndarray, "N S S"]:
    """The window of masks, resized by area and cut at one half, so that disjoint masks stay disjoint."""
    x, y, side = window
    parts = [
        cv2.resize(mask[y : y + side, x : x + side].astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
        for mask in masks
    ]
    return np.stack(parts) > 0.5


def face_crop(
    picture: UInt8[np.ndarray, "H W 3"], box: Float[np.ndarray, " 4"], size: int
) -> UInt8[np.ndarray, "S S 3"]:
    """A square around a face with room for the hair; what lies outside the picture is white."""
    return padded_square(picture, box, float(max(box[2] - box[0], box[3] - box[1])) * FACE_MARGIN, size)


def portrait(
    picture: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"], size: int
) -> UInt8[np.ndarray, "S S 3"]:
    """A person alone on white, the longer side filling the square.

    Raises:
        ValueError: the mask is empty.

    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ValueError("a portrait needs a mask with at least one pixel")
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
    alone = np.where(mask[:, :, None], picture, np.uint8(255))
    return padded_square(alone, box, float(max(box[2] - box[0], box[3] - box[1])), size)


def padded_square(
    picture: UInt8[np.ndarray, "H W 3"], box: Float[np.ndarray, " 4"], side: float, size: int
) -> UInt8[np.ndarray, "S S 3"]:
    """The square of a given side around the centre of a box, on white where the picture ends, resized."""
    pixels = max(1, round(side))
    corner = np.round((box[:2] + box[2:] - pixels) / 2).astype(int)
    canvas = np.full((pixels, pixels, 3), 255, np.uint8)
    low = np.maximum(corner, 0)
    high = np.minimum(corner + pixels, (picture.shape[1], picture.shape[0]))
    if (high > low).all():
        (x0, y0), (x1, y1) = low - corner, high - corner
        canvas[y0:y1, x0:x1] = picture[low[1] : high[1], low[0] : high[0]]
    return resize(canvas, size)


def resize(picture: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "S S 3"]:
    """A square picture at another size: by area when it shrinks, bicubic when it grows."""
    method = cv2.INTER_AREA if picture.shape[0] >= size else cv2.INTER_CUBIC
    return cv2.resize(picture, (size, size), interpolation=method)


def face_masks(masks: Bool[np.ndarray, "N H W"], boxes: Float[np.ndarray, "N 4"]) -> Bool[np.ndarray, "N H W"]:
    """Each person's pixels inside their face box."""
    boxed = np.zeros_like(masks)
    for i, (x0, y0, x1, y1) in enumerate(np.round(boxes).astype(int)):
        boxed[i, max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
    return boxed & masks


def identity_groups(embeddings: Float[np.ndarray, "M D"], same_identity: float) -> Int[np.ndarray, " M"]:
    """The identity of each person: people more similar than the threshold, also through others, are one."""
    rows, columns = np.nonzero(embeddings @ embeddings.T >= same_identity)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(embeddings),) * 2)
    return connected_components(graph, directed=False)[1]


def split_by_identity(identities: Sequence[Sequence[Hashable]], val_fraction: float, seed: int) -> list[str]:
    """``train`` or ``val`` for each sample, so that no identity is in both.

    Samples that share an identity, also through others, stay together; such groups are drawn at random into the
    validation part as long as they fit.
    """
    owners: dict[Hashable, int] = {}
    pairs = [(i, owners.setdefault(who, i)) for i, people in enumerate(identities) for who in people]
    links = coo_array(
        (np.ones(len(pairs)), tuple(np.array(pairs, dtype=int).reshape(-1, 2).T)), shape=(len(identities),) * 2
    )
    num_groups, group = connected_components(links, directed=False)
    room = val_fraction * len(identities)
    validation = np.zeros(len(identities), dtype=bool)
    for candidate in np.random.default_rng(seed).permutation(num_groups):
        if validation.sum() + (group == candidate).sum() <= room:
            validation |= group == candidate
    return ["val" if held_out else "train" for held_out in validation]
