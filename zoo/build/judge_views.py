"""What the judge looks at: scenes and single things, with the words about every subject and where it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from mcpipe.world.captions import COUNTS, SIDES
from mcpipe.world.scene import OBJECT_LABEL
from zoo.build.crops import cut_out
from zoo.build.judge_claims import PEOPLE, THINGS, Realm, Words
from zoo.build.pictures import COARSER, Pictures
from zoo.build.things import ThingPictures

SMALL, SMALL_SHARE = 96, 0.35
"""Pixels of the side of a share of the images: what the pipeline generates."""

SIDES_PX = (128, 192)
"""Pixels of the sides of the others."""

BLURRED_SHARE = 0.25
"""Share of images that are a little soft, as generated ones are."""

LEAST_SHARE = 0.01
"""Part of an image that a subject fills, at least; scenes with less of one are not shown."""

OPAQUE = 128
"""Value of a reference's fourth channel from which a pixel is the thing's."""

WHOLE, GONE = 0.97, 0.1
"""Visible part of a subject from which it counts as whole, and up to which as absent."""


@dataclass(frozen=True)
class View:
    """An image (H, W, 3) with what is in it."""

    picture: np.ndarray
    labels: np.ndarray
    """(H', W') of the same area: 0 background, i + 1 subject i."""
    subjects: tuple[Words, ...]
    """From left to right."""
    texts: tuple[str, ...]
    """Their whole descriptions."""
    where: str
    """Place as captions say it: "on a table in a park"."""
    realm: Realm
    cut: tuple[int, ...] = ()
    """Subjects that the edge of the image cuts off."""

    def patches(self, seats: Sequence[int], side: tuple[int, int]) -> np.ndarray:
        """Part of each of (rows, columns) patches that shows one of these subjects, in [0, 1]."""
        mask = np.isin(self.labels, [seat + 1 for seat in seats]).astype(np.float32)
        return cv2.resize(mask, side[::-1], interpolation=cv2.INTER_AREA)


def scene_of_things(things: ThingPictures, index: int, rng: np.random.Generator) -> View:
    """A scene, mirrored or not, or one near it in which everything is large enough."""
    labels = np.asarray(things.labels[index])
    scene = things.scenes[index]
    view = View(
        picture=np.asarray(things.frames[index]),
        labels=labels,
        subjects=tuple(scene["attributes"]),
        texts=tuple(scene["things"]),
        where=where_of(scene["caption"]),
        realm=THINGS,
    )
    if not _visible(view):
        return scene_of_things(things, (index + 1) % len(things.scenes), rng)
    return _resized(view, rng)


def thing_alone(things: ThingPictures, index: int, rng: np.random.Generator) -> View:
    """A reference: one thing in a place of its own or, more often, on white."""
    scene = things.scenes[index]
    seat = int(rng.integers(len(scene["things"])))
    four = np.asarray(things.references[scene["first_reference"] + seat])
    view = View(
        picture=four[..., :3] if rng.random() < 0.3 else cut_out(four),
        labels=(four[..., 3] >= OPAQUE).astype(np.uint8),
        subjects=(scene["attributes"][seat],),
        texts=(scene["things"][seat],),
        where="",
        realm=THINGS,
    )
    return _resized(view, rng)


def scene_of_people(pictures: Pictures, index: int, rng: np.random.Generator) -> View:
    """The square of a scene of people, mirrored or not, or one near it in which everybody is large enough."""
    scene = pictures.scenes[index]
    whole = np.asarray(pictures.labels[index])
    start, width = round(scene["left"] / COARSER), whole.shape[0]
    labels = whole[:, start : start + width]
    view = View(
        picture=pictures.square(index),
        labels=np.where(labels > OBJECT_LABEL, labels - OBJECT_LABEL, labels),
        subjects=tuple(scene["attributes"]),
        texts=tuple(scene["people"]),
        where=where_of(scene["caption"]),
        realm=PEOPLE,
    )
    if not _visible(view):
        return scene_of_people(pictures, (index + 1) % len(pictures.scenes), rng)
    return _resized(view, rng)


def cut_off(view: View, rng: np.random.Generator) -> View:
    """The part of an image beside a line through one of its subjects, each of which is then whole, cut or absent."""
    seat = int(rng.integers(len(view.subjects)))
    columns = np.flatnonzero((view.labels == seat + 1).any(axis=0))
    line = columns[0] + (columns[-1] - columns[0]) * float(rng.uniform(0.35, 0.65))
    share = line / view.labels.shape[1]
    kept_left = share > 0.5
    label_part, part = (_beside(array, share, left=kept_left) for array in (view.labels, view.picture))
    visible = [(label_part == number + 1).sum() / (view.labels == number + 1).sum()
               for number in range(len(view.subjects))]  # fmt: skip
    present = [number for number, left in enumerate(visible) if left > GONE]
    renumbered = np.zeros_like(label_part)
    for place, number in enumerate(present):
        renumbered[label_part == number + 1] = place + 1
    return replace(
        view,
        picture=np.ascontiguousarray(part),
        labels=renumbered,
        subjects=tuple(view.subjects[number] for number in present),
        texts=tuple(view.texts[number] for number in present),
        cut=tuple(place for place, number in enumerate(present) if visible[number] < WHOLE),
    )


def where_of(caption: str) -> str:
    """The place that a describing caption names."""
    head = caption.partition(":")[0]
    return head.partition(" ")[2].partition(" ")[2]


def sentence(view: View, texts: Sequence[str], where: str) -> str:
    """A caption in the form that describes every subject from left to right."""
    noun = ("thing", "things") if view.realm is THINGS else ("person", "people")
    count = f"{COUNTS[len(texts)].split()[0]} {noun[len(texts) > 1]}"
    said = "; ".join(f"{side} {text}".strip() for side, text in zip(SIDES[len(texts)], texts, strict=True))
    return f"{count} {where}: {said}"


def _visible(view: View) -> bool:
    return all((view.labels == seat + 1).mean() >= LEAST_SHARE for seat in range(len(view.subjects)))


def _beside(array: np.ndarray, share: float, *, left: bool) -> np.ndarray:
    column = round(share * array.shape[1])
    return array[:, :column] if left else array[:, column:]


def _resized(view: View, rng: np.random.Generator) -> View:
    """The view as an image of another size, mirrored at times, and soft at times."""
    side = SMALL if rng.random() < SMALL_SHARE else int(rng.integers(SIDES_PX[0], SIDES_PX[1] + 1))
    shrinks = side < len(view.picture)
    picture = cv2.resize(view.picture, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if rng.random() < BLURRED_SHARE:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.3, 0.008 * side)))
    if rng.random() < 0.5:
        return replace(view, picture=picture)
    total = len(view.subjects)
    return replace(
        view,
        picture=np.ascontiguousarray(picture[:, ::-1]),
        labels=np.where(view.labels > 0, total + 1 - view.labels.astype(int), 0)[:, ::-1],
        subjects=view.subjects[::-1],
        texts=view.texts[::-1],
    )
