"""From verified frames to training samples: references, square target, masks, and a split by identity."""

from collections.abc import Hashable, Mapping, Sequence
from hashlib import sha256
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from pydantic import Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mcpipe.core.params import Params, RecordsPerShard
from mcpipe.core.rounding import cosines
from mcpipe.core.schemas.curation import SplitName
from mcpipe.core.sizes import Size
from mcpipe.curate.buckets import Aspect, Bucket
from mcpipe.curate.recognisers import PerRecogniser
from mcpipe.curate.windows import Crop, Window

FACE_MARGIN = 1.5
"""Side of a face reference in units of the face's longer side, with room for hair and chin."""
CLOSEUP_MARGIN = 2.5
"""Side of a close-up of one person in units of the face's longer side: head and shoulders."""
IDENTITY_CHUNK = 256
"""Number of people whose similarities to all others are held in memory at a time."""


class SamplesParams(Params):
    """Sizes of samples, and their split."""

    crop: Crop
    """What the target square has to hold (`mcpipe.curate.windows`)."""
    min_body: float = Field(ge=0, le=1)
    """Minimum share of every person's mask in a square that does not hold everyone."""
    aspect: Aspect
    """Whether targets are squares, or have one of several shapes (`mcpipe.curate.buckets`)."""
    buckets: list[Bucket] = Field(max_length=16)
    """Shapes of targets beside the square, such as ``640x480``, with about its area; only of use with that aspect."""
    image_size: int = Field(ge=16)
    """Side of the target in pixels (paper: 512)."""
    reference_size: int = Field(ge=16)
    """Side of a face reference in pixels (paper: 320)."""
    portrait_size: int = Field(ge=16)
    """Side of a whole-body reference on white, in pixels."""
    same_identity: PerRecogniser
    """Minimum cosine of people of two clips that count as one identity, by the name of the recogniser's pack."""
    reference_background: Literal["scene", "white"]
    """Background of a face reference, outside the person's mask: the frame, or white."""
    val_fraction: float = Field(ge=0, lt=1)
    """Fraction of the samples that is held out."""
    seed: int
    """Seed of the split."""
    records_per_shard: RecordsPerShard


def cut_window(picture: UInt8[np.ndarray, "H W 3"], window: Window) -> UInt8[np.ndarray, "h w 3"]:
    """The window of an image at its own resolution, white outside the image."""
    return _cut(picture, window, np.uint8(255))


def crop_window(picture: UInt8[np.ndarray, "H W 3"], window: Window, size: Size) -> UInt8[np.ndarray, "h w 3"]:
    """The window of an image, resized."""
    return resize(cut_window(picture, window), size)


def crop_masks(masks: Bool[np.ndarray, "N H W"], window: Window, size: Size) -> Bool[np.ndarray, "N h w"]:
    """The window of masks, resized so that disjoint masks stay disjoint; masks are empty outside the image.

    When it grows, every pixel takes the value of its nearest one, which is reversible; when it shrinks, a pixel belongs
    to the person who covers more than half of it.
    """
    method = cv2.INTER_AREA if window.height >= size[1] else cv2.INTER_NEAREST_EXACT
    parts = [_cut(mask.astype(np.float32), window, np.float32(0)) for mask in masks]
    return np.stack([cv2.resize(part, size, interpolation=method) for part in parts]) > 0.5


def face_crop(
    picture: UInt8[np.ndarray, "H W 3"], box: Float[np.ndarray, " 4"], size: int
) -> UInt8[np.ndarray, "S S 3"]:
    """A square around a face with room for the hair, white outside the image."""
    return padded_square(picture, box, float(max(box[2] - box[0], box[3] - box[1])) * FACE_MARGIN, size)


def closeup_window(box: Float[np.ndarray, " 4"], height: int, width: int, margin: float = CLOSEUP_MARGIN) -> Window:
    """The square of a close-up around a face, moved into the frame as far as it goes.

    ``margin`` is its side in units of the box's longer side.
    """
    side = min(round(float(max(box[2] - box[0], box[3] - box[1])) * margin), height, width)
    corner = np.round((box[:2] + box[2:] - side) / 2).clip(0, np.array((width, height)) - side)
    return Window.square(int(corner[0]), int(corner[1]), side)


def closeup(
    picture: UInt8[np.ndarray, "H W 3"],
    masks: Bool[np.ndarray, "N H W"],
    box: Float[np.ndarray, " 4"],
    person: int,
    margin: float = CLOSEUP_MARGIN,
) -> UInt8[np.ndarray, "s s 3"]:
    """A close-up of one person or object, at the frame's resolution, with all others painted white.

    ``masks`` are everybody's, ``box`` is the face's, or the object's, of number ``person`` among them; ``margin`` as
    in `closeup_window`.
    """
    others = np.zeros(picture.shape[:2], bool)
    for number, mask in enumerate(masks):
        others |= mask & (number != person)
    height, width = picture.shape[:2]
    return cut_window(on_white(picture, ~others), closeup_window(box, height, width, margin))


def portrait(
    picture: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"], size: int
) -> UInt8[np.ndarray, "S S 3"]:
    """A single person on white, whose longer side fills the square.

    Raises:
        ValueError: the mask is empty.

    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ValueError("a portrait needs a mask with at least one pixel")
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
    return padded_square(on_white(picture, mask), box, float(max(box[2] - box[0], box[3] - box[1])), size)


def on_white(picture: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """An image that is white outside of a mask."""
    return np.where(mask[:, :, None], picture, np.uint8(255))


def padded_square(
    picture: UInt8[np.ndarray, "H W 3"], box: Float[np.ndarray, " 4"], side: float, size: int
) -> UInt8[np.ndarray, "S S 3"]:
    """The square of a given side around the centre of a box, on white where the image ends, resized."""
    pixels = max(1, round(side))
    x, y = np.round((box[:2] + box[2:] - pixels) / 2).astype(int)
    return resize(_cut(picture, Window.square(int(x), int(y), pixels), np.uint8(255)), (size, size))


def _cut(picture: np.ndarray, window: Window, outside: np.generic) -> np.ndarray:
    """A window of an image or a mask, with a constant value outside it."""
    canvas = np.full((window.height, window.width, *picture.shape[2:]), outside, picture.dtype)
    corner = window[:2]
    low = np.maximum(corner, 0)
    high = np.minimum(np.add(corner, window[2:]), (picture.shape[1], picture.shape[0]))
    if (high > low).all():
        (x0, y0), (x1, y1) = low - corner, high - corner
        canvas[y0:y1, x0:x1] = picture[low[1] : high[1], low[0] : high[0]]
    return canvas


def resize(picture: UInt8[np.ndarray, "H W 3"], size: Size) -> UInt8[np.ndarray, "h w 3"]:
    """An image at another size: by area when it shrinks, bicubic when it grows."""
    method = cv2.INTER_AREA if picture.shape[0] >= size[1] else cv2.INTER_CUBIC
    return cv2.resize(picture, size, interpolation=method)


def face_masks(masks: Bool[np.ndarray, "N H W"], boxes: Float[np.ndarray, "N 4"]) -> Bool[np.ndarray, "N H W"]:
    """Each person's pixels inside their face box."""
    boxed = np.zeros_like(masks)
    for i, (x0, y0, x1, y1) in enumerate(np.round(boxes).astype(int)):
        boxed[i, max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
    return boxed & masks


def identity_groups(embeddings: Float[np.ndarray, "M D"], same_identity: float) -> Int[np.ndarray, " M"]:
    """The identity of each person: people linked by similarities above the threshold share an identity."""
    pairs = [np.zeros((2, 0), int)]
    for start in range(0, len(embeddings), IDENTITY_CHUNK):
        rows, columns = np.nonzero(cosines(embeddings[start : start + IDENTITY_CHUNK], embeddings) >= same_identity)
        pairs.append(np.stack([rows + start, columns]))
    alike = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(alike.shape[1]), (alike[0], alike[1])), shape=(len(embeddings),) * 2)
    return connected_components(graph, directed=False)[1]


def clip_groups(people: Mapping[str, Sequence[Hashable]]) -> Int[np.ndarray, " clips"]:
    """The group of each clip by the identities in it: clips linked by shared identities form a group."""
    owners: dict[Hashable, int] = {}
    pairs = [(i, owners.setdefault(who, i)) for i, name in enumerate(people) for who in people[name]]
    links = coo_array(
        (np.ones(len(pairs)), tuple(np.array(pairs, dtype=int).reshape(-1, 2).T)), shape=(len(people),) * 2
    )
    return connected_components(links, directed=False)[1]


def split_by_identity(people: Mapping[str, Sequence[Hashable]], val_fraction: float, seed: int) -> dict[str, SplitName]:
    """``train`` or ``val`` for each clip by the identities in it, so that no identity is in both.

    Clips that share an identity, also indirectly, stay together. The split of such a group depends only on the seed and
    the name of its first clip: further clips do not move others, unless they join two groups or come before the first
    clip of a group. About ``val_fraction`` of the groups are held out; of two or more groups, at least one is held out
    and at least one is not (the group closest to the fraction).
    """
    names = list(people)
    group = clip_groups(people)
    num_groups = group.max(initial=-1) + 1
    firsts: dict[int, str] = {}
    for name, own in sorted(zip(names, group.tolist(), strict=True)):
        firsts.setdefault(own, name)
    lots = np.array([_lot(firsts[group], seed) for group in range(num_groups)])
    held_out = lots < val_fraction
    if val_fraction > 0 and num_groups > 1:
        held_out |= lots == lots.min()
        held_out &= lots < lots.max()
    return {name: "val" if held_out[own] else "train" for name, own in zip(names, group, strict=True)}


def _lot(name: str, seed: int) -> float:
    """A number in [0, 1) drawn for a name."""
    return int.from_bytes(sha256(f"{seed}\n{name}".encode()).digest()[:8]) / 2**64
