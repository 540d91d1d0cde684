"""Training pictures of the grounder: cuts of scenes and references, each with a phrase and the boxes that it means."""

from dataclasses import dataclass

import cv2
import numpy as np

from mcpipe.world.scene import mask_box
from mcpipe.world.thing_captions import VOCABULARY
from zoo.build.crops import on_white
from zoo.build.phrases import Phrase, sample_phrase
from zoo.build.things import COARSER, ThingPictures

SEEN_WORDS = ("family", "colour", "pattern")
"""What the visual tokens are asked for in training, directly."""

UNSEEN = -100
"""A class that counts for nothing (PyTorch's convention)."""

REFERENCE_SHARE = 0.15
"""Share of pictures of one thing alone; all others show two or three, between which a phrase decides."""

CUT_RANGE = (0.78, 1.0)
"""Side of the square that is cut from a scene, in its side; half of the scenes are whole."""

LEAST_VISIBLE = 0.6
"""Share of a thing's pixels that a cut has to keep, of every thing in it."""

COARSE_RANGE = (40, 96)
"""Pixels that a third of the pictures are shrunk to before they are enlarged again, as generated ones look."""


@dataclass(frozen=True)
class Grounded:
    """A picture with a phrase."""

    rgb: np.ndarray
    """(S, S, 3) uint8."""
    phrase: Phrase
    boxes: np.ndarray
    """(N, 4) in shares of the sides, of all things that the phrase describes, from left to right."""
    belongs: np.ndarray
    """(cells, cells) share of each cell that shows one of those."""
    seen: np.ndarray
    """(cells, cells, words) classes of `SEEN_WORDS` of the thing in each cell, `UNSEEN` where there is none."""


def draw(pictures: ThingPictures, size: int, cells: int, rng: np.random.Generator) -> Grounded:
    """A picture of ``size`` pixels and its truth in ``cells`` by ``cells`` visual tokens."""
    alone = rng.random() < REFERENCE_SHARE
    index = int(rng.integers(len(pictures.scenes)))
    while not alone and len(pictures.scenes[index]["names"]) == 1:
        index = int(rng.integers(len(pictures.scenes)))
    scene = pictures.scenes[index]
    if alone:
        seat = int(rng.integers(len(scene["names"])))
        four = np.asarray(pictures.references[scene["first_reference"] + seat])
        rgb, labels, things = on_white(four, rng), (four[..., 3] > 127).astype(np.uint8), [scene["attributes"][seat]]
    else:
        rgb, labels = _cut(np.asarray(pictures.frames[index]), np.asarray(pictures.labels[index]), rng)
        things = scene["attributes"]
    if rng.random() < 0.5:
        rgb, labels = rgb[:, ::-1], labels[:, ::-1]
    phrase = sample_phrase(things, rng)
    seats = phrase.matches(things)
    side = len(labels)
    boxes = [box / side for seat in seats if (box := mask_box(labels == seat + 1)) is not None]
    boxes.sort(key=lambda box: box[0] + box[2])
    belongs = np.isin(labels, [seat + 1 for seat in seats]).astype(np.float32)
    return Grounded(
        rgb=_photographed(np.ascontiguousarray(rgb), size, rng),
        phrase=phrase,
        boxes=np.array(boxes).reshape(-1, 4),
        belongs=cv2.resize(belongs, (cells, cells), interpolation=cv2.INTER_AREA),
        seen=_seen(labels, things, cells),
    )


def _cut(rgb: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Half of the time the whole square, else one cut from it that keeps most of everything."""
    whole = np.bincount(labels.ravel(), minlength=2)
    if rng.random() < 0.5:
        side = round(float(rng.uniform(*CUT_RANGE)) * len(labels))
        top, left = (int(rng.integers(len(labels) - side + 1)) for _ in range(2))
        part = labels[top : top + side, left : left + side]
        if np.all(np.bincount(part.ravel(), minlength=len(whole))[1:] >= LEAST_VISIBLE * whole[1:]):
            rows, columns = (slice(COARSER * start, COARSER * (start + side)) for start in (top, left))
            return rgb[rows, columns], part
    return rgb, labels


def _photographed(rgb: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """The picture at its size in another light, a third of them coarse."""
    if rng.random() < 1 / 3:
        coarse = int(rng.integers(*COARSE_RANGE))
        rgb = cv2.resize(rgb, (coarse, coarse), interpolation=cv2.INTER_AREA)
    rgb = cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA if len(rgb) > size else cv2.INTER_LINEAR)
    return cv2.convertScaleAbs(rgb, alpha=float(rng.uniform(0.9, 1.08)), beta=float(rng.uniform(0, 8)))


def _seen(labels: np.ndarray, things: list[dict[str, str]], cells: int) -> np.ndarray:
    middles = ((np.arange(cells) + 0.5) * len(labels) / cells).astype(int)
    small = labels[np.ix_(middles, middles)]
    table = np.full((256, len(SEEN_WORDS)), UNSEEN)
    for seat, words in enumerate(things):
        table[seat + 1] = [VOCABULARY[name].index(words[name]) for name in SEEN_WORDS]
    return table[small]
