"""Training images of things: scenes of one to three with masks and captions in both forms, and references.

An image set is a folder: ``frames.npy`` (N, 160, 160, 3), ``labels.npy`` (N, 80, 80) which thing every second pixel
shows (`mcpipe.world.things.ThingFrame`), ``references.npy`` (M, 84, 84, 4) each thing alone in another place with its
mask as fourth channel, ``gallery.npy`` (G, 96, 96, 3) crops of things that appear several times, and ``things.json``
with ground truth. Things come from the namespace "zoo things" and appear nowhere else.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from pydantic import Field

from mcpipe.core.params import Params
from mcpipe.core.progress import track
from mcpipe.world.identities import world_rng
from mcpipe.world.thing_captions import describe_thing, describe_things, name_things, thing_vector, thing_words
from mcpipe.world.things import (
    COUNT_SHARES,
    Thing,
    ThingScene,
    reference,
    render_things,
    sample_thing,
    sample_thing_scene,
    sample_things,
)
from zoo.build.crops import face_crop

NAMESPACE = "zoo things"
SIDE = 160
"""Pixels of a square's side."""

COARSER = 2
"""Pixels of a square per label, in each direction."""

REFERENCE = 84
"""Pixels of a reference's side."""

GALLERY = 96
GALLERY_SCALES = (1.05, 1.3)
"""Sides of the gallery's crops in longer sides of the thing's box."""

INVENTED = 3
"""Invented scenes of the same things, whose captions serve as prompts."""

SPLITS = {"train": 0, "test": 1}
GALLERY_SPLIT = 2
Stream = Callable[..., np.random.Generator]
"""Random numbers of a part of the world, by the split and the number of a scene or of a thing seen often."""

JOBS_TOGETHER = 16
"""Scenes that a process renders before it returns them."""


class ThingsParams(Params):
    """How much to render."""

    num_scenes: int = Field(ge=1)
    """Squares for training."""
    num_test_scenes: int = Field(ge=1)
    """Squares of other things for the figures in the model cards."""
    num_gallery_things: int = Field(ge=2)
    """Things that appear several times, in the test set alone."""
    gallery_pictures: int = Field(ge=2)
    """Appearances of each of them, in different scenes."""
    scene_captions: int = Field(ge=1)
    """Captions that only name the things, for each scene and for its mirror image."""
    workers: int = Field(default=1, ge=1)
    """Processes; no effect on the result."""


@dataclass(frozen=True)
class Drawn:
    """A rendered scene with its references and its record."""

    rgb: np.ndarray
    labels: np.ndarray
    references: list[np.ndarray]
    record: dict


def build(out: Path, params: ThingsParams) -> None:
    """Render the training and the test set into ``out/train`` and ``out/test``."""
    stream = partial(world_rng, NAMESPACE)
    for split, total in {"train": params.num_scenes, "test": params.num_test_scenes}.items():
        seen_often = (params.num_gallery_things if split == "test" else 0, params.gallery_pictures)
        write_things(out / split, stream, split, (total, *seen_often), params.scene_captions, params.workers)


def write_things(
    folder: Path, stream: Stream, split: str, sizes: tuple[int, int, int], scene_captions: int, workers: int = 1
) -> None:
    """Render an image set: numbers of scenes, of things seen often and of their appearances, from ``stream``."""
    total, num_things, appearances = sizes
    folder.mkdir(parents=True, exist_ok=True)
    scenes = _write_scenes(folder, partial(_scene, stream, SPLITS[split], scene_captions), total, workers)
    gallery = list(_gallery(stream, num_things, appearances))
    crops = np.stack([crop for _, crop in gallery]) if gallery else np.zeros((0, GALLERY, GALLERY, 3), np.uint8)
    np.save(folder / "gallery.npy", crops)
    content = {"scenes": scenes, "gallery": [which for which, _ in gallery]}
    (folder / "things.json").write_text(json.dumps(content), encoding="utf-8")


def _write_scenes(folder: Path, draw: Callable[[int], Drawn], total: int, workers: int) -> list[dict]:
    frames, labels, references, records = [], [], [], []
    for scene in track(_rendered(draw, total, workers), total, "rendering scenes of things"):
        frames.append(scene.rgb)
        labels.append(scene.labels)
        records.append(scene.record | {"first_reference": len(references)})
        references += scene.references
    for name, arrays in {"frames": frames, "labels": labels, "references": references}.items():
        np.save(folder / f"{name}.npy", np.stack(arrays))
    return records


def _rendered(draw: Callable[[int], Drawn], total: int, workers: int) -> Iterator[Drawn]:
    if workers == 1:
        yield from map(draw, range(total))
        return
    # Fresh processes, because threads of this one may hold locks.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(draw, range(total), chunksize=JOBS_TOGETHER)


def _scene(stream: Stream, split: int, scene_captions: int, index: int) -> Drawn:
    """Scene ``index`` of a split, everything of which follows from the stream and the two numbers."""
    cv2.setNumThreads(1)
    rng = stream(split, index)
    count = int(rng.choice(list(COUNT_SHARES), p=list(COUNT_SHARES.values())))
    things = sample_things(rng, count)
    scene = sample_thing_scene(rng, things)
    frame = render_things(scene, SIDE, SIDE)
    coarse = frame.labels[COARSER // 2 :: COARSER, COARSER // 2 :: COARSER]
    boxes = [None if truth.box is None else truth.box.tolist() for truth in frame.things]
    record = record_of(scene, rng, scene_captions) | {"boxes": boxes}
    return Drawn(frame.rgb, coarse, [_reference(thing, rng) for thing in things], record)


def record_of(scene: ThingScene, rng: np.random.Generator, scene_captions: int) -> dict:
    """Record of a scene as JSON: captions in both forms, and the words, phrases and traits of its things."""
    things, mirrored = [place.thing for place in scene.places], scene.mirrored()
    invented = [sample_thing_scene(rng, things) for _ in range(INVENTED)]
    return {
        "caption": describe_things(scene),
        "mirrored_caption": describe_things(mirrored),
        "settings": [name_things(scene, rng) for _ in range(scene_captions)],
        "mirrored_settings": [name_things(mirrored, rng) for _ in range(scene_captions)],
        "invented": [describe_things(other) for other in invented],
        "invented_settings": [name_things(other, rng) for other in invented],
        "names": [thing.family for thing in things],
        "phrases": [thing.phrase for thing in things],
        "things": [describe_thing(thing) for thing in things],
        "attributes": [thing_words(thing) for thing in things],
        "traits_vectors": [[round(value, 4) for value in thing_vector(thing)] for thing in things],
    }


def _reference(thing: Thing, rng: np.random.Generator) -> np.ndarray:
    """A thing alone in a place of its own, with its mask (84, 84, 4)."""
    alone = reference(thing, rng, REFERENCE, plain=False)
    return np.dstack([alone.rgb, alone.things[0].mask.astype(np.uint8) * 255])


def _gallery(stream: Stream, count: int, pictures: int) -> Iterator[tuple[int, np.ndarray]]:
    """Things by number, each with crops around it from scenes of two."""
    for which in range(count):
        rng = stream(GALLERY_SPLIT, which)
        thing = sample_thing(rng)
        for _ in range(pictures):
            pair = [thing, sample_thing(rng)]
            seat = int(rng.integers(2))
            frame = render_things(sample_thing_scene(rng, pair[:: 1 - 2 * seat]), SIDE, SIDE)
            box = frame.things[seat].box
            if box is not None:
                yield which, face_crop(frame.rgb, box, float(rng.uniform(*GALLERY_SCALES)), GALLERY)


@dataclass(frozen=True)
class ThingPictures:
    """An image set, read."""

    frames: np.ndarray
    labels: np.ndarray
    references: np.ndarray
    gallery: np.ndarray
    scenes: list[dict]
    gallery_things: np.ndarray

    def square(self, index: int) -> np.ndarray:
        """One frame, (160, 160, 3)."""
        return self.frames[index]

    def small(self, size: int) -> np.ndarray:
        """All frames at another size, (N, size, size, 3)."""
        return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in self.frames])

    def captions(self) -> list[str]:
        """The describing captions."""
        return [scene["caption"] for scene in self.scenes]

    def seats(self) -> list[tuple[int, int]]:
        """Index of the scene and of the seat of every thing that is visible."""
        return [
            (index, seat)
            for index, scene in enumerate(self.scenes)
            for seat, box in enumerate(scene["boxes"])
            if box is not None
        ]


def read_things(folder: Path) -> ThingPictures:
    """The image set that `build` wrote to a folder.

    Raises:
        FileNotFoundError: the folder holds none.
    """
    file = folder / "things.json"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; has the stage `things` of the zoo run?")
    content = json.loads(file.read_text(encoding="utf-8"))
    names = ("frames", "labels", "references", "gallery")
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
    return ThingPictures(**arrays, scenes=content["scenes"], gallery_things=np.array(content["gallery"]))
