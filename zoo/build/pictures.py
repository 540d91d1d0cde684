"""Training images of everything that sees whole scenes or reads captions: squares with all people, and references.

An image set is a folder: ``frames.npy`` (N, 240, 320, 3), ``labels.npy`` (N, 60, 80) who or what every fourth pixel
shows (`mcpipe.world.scene.RenderedFrame`), ``references.npy`` (M, 84, 84, 4) face crops with a mask as
fourth channel, ``gallery.npy`` (G, 96, 96, 3) heads and shoulders of people who appear several times, and
``pictures.json`` with their ground truth. Identities come from the namespace "zoo" and appear nowhere else.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from pydantic import Field

from mcpipe.core.params import Params
from mcpipe.core.progress import track
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.lookalikes import look_alike
from mcpipe.world.scene import Scene, render, sample_scene
from mcpipe.world.shots import FRAMINGS
from zoo.build.crops import FRAME, SQUARE, face_crop
from zoo.build.crowds import CROWD, sample_crowded
from zoo.build.scene_records import record_of, references_of, settings_of

GALLERY = 96
COUNT_SHARES = {1: 0.15, 2: 0.70, 3: 0.15}
"""How often an image shows one, two or three people, where it is not a crowd."""

LATEST_S = 1.0
SECONDS_BETWEEN = (0.6, 1.4)
"""Time from the reference's frame to the target's."""

GALLERY_SCALE = 2.3
"""Side of a square crop around a face, in longer sides of its box."""

COARSER = 4
"""Pixels of a frame per label, in each direction."""

PER_SCENE = 2
JOBS_TOGETHER = 16
"""Frames that a process renders before it returns them."""

SPLITS = {"train": 0, "test": 1}

T = TypeVar("T")
R = TypeVar("R")
Stream = Callable[..., np.random.Generator]
"""Random numbers of a part of the world, by numbers: 100 and 101 for scenes, 200 and 201 for people seen often."""


class PicturesParams(Params):
    """How much to render."""

    num_scenes: int = Field(ge=1)
    """Squares for training."""
    num_test_scenes: int = Field(ge=1)
    """Squares of other people for the figures in the model cards."""
    num_gallery_identities: int = Field(ge=2)
    """People who appear several times, for training."""
    num_test_gallery_identities: int = Field(ge=2)
    """Others, for the figures."""
    gallery_pictures: int = Field(ge=2)
    """Appearances of each of them, in different scenes and clothes."""
    close_share: float = Field(ge=0, le=1)
    """Share of scenes that are close shots."""
    crowd_share: float = Field(default=0.0, ge=0, le=1)
    """Share of scenes with four people."""
    alike_share: float = Field(ge=0, le=1)
    """Share of pairs in which one person is a look-alike of the other (`mcpipe.world.lookalikes`)."""
    scene_captions: int = Field(ge=0)
    """Captions in the form "scene" for each scene, beside the one in the form "people"."""
    workers: int = Field(default=1, ge=1)
    """Processes; no effect on the result."""


def build(out: Path, params: PicturesParams) -> None:
    """Render the training and the test set into ``out/train`` and ``out/test``."""
    sizes = {
        "train": (params.num_scenes, params.num_gallery_identities),
        "test": (params.num_test_scenes, params.num_test_gallery_identities),
    }
    for split, (num_scenes, num_identities) in sizes.items():
        look = Look(params.close_share, params.alike_share, params.scene_captions, params.crowd_share)
        numbers = num_scenes, num_identities, params.gallery_pictures
        write_pictures(out / split, partial(world_rng, "zoo"), split, numbers, look, params.workers)


@dataclasses.dataclass(frozen=True)
class Look:
    """Settings of scenes and of their captions."""

    close_share: float = 0.0
    """Share of close shots, in [0, 1]."""
    alike_share: float = 0.0
    """Share of pairs who are look-alikes, in [0, 1]."""
    scene_captions: int = 0
    """Captions in the form "scene" per scene."""
    crowd_share: float = 0.0
    """Share of scenes with four people, in [0, 1]."""


FAR_LOOK = Look()


def write_pictures(
    folder: Path,
    stream: Stream,
    split: str,
    sizes: tuple[int, int, int],
    look: Look = FAR_LOOK,
    workers: int = 1,
) -> None:
    """Render an image set: numbers of scenes, of people and of their appearances, drawn from ``stream``."""
    num_scenes, num_identities, appearances = sizes
    folder.mkdir(parents=True, exist_ok=True)
    scenes = _write_scenes(folder, stream, split, num_scenes, look, workers)
    gallery = _write_gallery(folder, stream, split, num_identities, appearances, workers)
    (folder / "pictures.json").write_text(json.dumps({"scenes": scenes, "gallery": gallery}), encoding="utf-8")


def _write_scenes(folder: Path, stream: Stream, split: str, total: int, look: Look, workers: int) -> list[dict]:
    frames = _array(folder / "frames.npy", (total, FRAME[1], FRAME[0], 3))
    labels = _array(folder / "labels.npy", (total, FRAME[1] // COARSER, FRAME[0] // COARSER))
    references: list[np.ndarray] = []
    records = []
    drawn = rendered(partial(_scene, stream, SPLITS[split], look), range(total), workers)
    for index, (rgb, coarse, record, crops) in enumerate(track(drawn, total, f"rendering {split} scenes")):
        frames[index], labels[index] = rgb, coarse
        records.append(record | {"first_reference": len(references)})
        references += crops
    frames.flush()
    labels.flush()
    np.save(folder / "references.npy", np.stack(references))
    return records


def _scene(stream: Stream, split: int, look: Look, index: int) -> tuple[np.ndarray, np.ndarray, dict, list[np.ndarray]]:
    """A frame, its coarse labels, its record without the number of its first reference, and its references."""
    rng, extra = stream(100 + split, index), stream(300 + split, index)
    count = int(rng.choice(list(COUNT_SHARES), p=list(COUNT_SHARES.values())))
    if sample_crowded(extra, look.crowd_share):
        count = CROWD
    people = [sample_identity(rng) for _ in range(count)]
    if count == PER_SCENE and extra.random() < look.alike_share:
        people[1] = look_alike(extra, people[0])
    framing = FRAMINGS["close" if extra.random() < look.close_share else "far"]
    scene = sample_scene(rng, people, framing=framing)
    start = float(rng.uniform(0, LATEST_S))
    frame = render(scene, start + float(rng.uniform(*SECONDS_BETWEEN)), *FRAME)
    record = record_of(scene, frame, framing, rng) | settings_of(scene, extra, look.scene_captions)
    coarse = frame.labels[COARSER // 2 :: COARSER, COARSER // 2 :: COARSER]
    return frame.rgb, coarse, record, references_of(render(scene, start, *FRAME), people, rng)


def _write_gallery(
    folder: Path, stream: Stream, split: str, num_identities: int, appearances: int, workers: int
) -> list[int]:
    rng = stream(200 + SPLITS[split])
    people = [sample_identity(rng) for _ in range(num_identities)]
    order = np.concatenate([rng.permutation(num_identities) for _ in range(appearances)])
    order = order[: len(order) // PER_SCENE * PER_SCENE].reshape(-1, PER_SCENE)
    gallery = _array(folder / "gallery.npy", (order.size, GALLERY, GALLERY, 3))
    moments = [(sample_scene(rng, [people[who] for who in pair]), float(rng.uniform(0, 2))) for pair in order]
    drawn = rendered(_faces, moments, workers)
    for index, crops in enumerate(track(drawn, len(order), f"rendering {split} gallery")):
        gallery[PER_SCENE * index : PER_SCENE * (index + 1)] = crops
    gallery.flush()
    return [int(who) for who in order.ravel()]


def _faces(moment: tuple[Scene, float]) -> np.ndarray:
    """Heads and shoulders of everybody at a time of a scene, (people, 96, 96, 3)."""
    scene, time = moment
    frame = render(scene, time, *FRAME)
    return np.stack([face_crop(frame.rgb, person.face_box, GALLERY_SCALE, GALLERY) for person in frame.people])


def rendered(render_one: Callable[[T], R], jobs: Sequence[T], workers: int) -> Iterator[R]:
    """Results of ``render_one`` in the order of ``jobs``; with more than one worker, from processes of their own."""
    if workers == 1:
        yield from map(render_one, jobs)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(render_one, jobs, chunksize=JOBS_TOGETHER)


def _array(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    return np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)


@dataclasses.dataclass(frozen=True)
class Pictures:
    """An image set, read."""

    frames: np.ndarray
    labels: np.ndarray
    references: np.ndarray
    gallery: np.ndarray
    scenes: list[dict]
    gallery_identities: np.ndarray

    def square(self, index: int) -> np.ndarray:
        """The square of one frame, (240, 240, 3)."""
        left = self.scenes[index]["left"]
        return self.frames[index, :, left : left + SQUARE]

    def small(self, size: int) -> np.ndarray:
        """All squares at another size, (N, size, size, 3)."""
        squares = (self.square(index) for index in range(len(self.scenes)))
        return np.stack([cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA) for square in squares])

    def captions(self) -> list[str]:
        """The captions of the squares."""
        return [scene["caption"] for scene in self.scenes]

    def all_texts(self) -> Iterator[str]:
        """Every sentence of the set: what tokenizers learn from."""
        for scene in self.scenes:
            yield from (scene["caption"], scene["mirrored_caption"], *scene["people"], *scene["invented"])
            yield from (*scene.get("settings", ()), *scene.get("mirrored_settings", ()))
            yield from scene.get("invented_settings", ())

    def people(self) -> Iterable[tuple[int, int]]:
        """Index of the scene and of the seat of everybody in the squares."""
        return ((index, seat) for index, scene in enumerate(self.scenes) for seat in range(len(scene["faces"])))


def read_pictures(folder: Path) -> Pictures:
    """The image set that `build` wrote to a folder.

    Raises:
        FileNotFoundError: the folder holds none.
    """
    file = folder / "pictures.json"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; has the stage `pictures` of the zoo run?")
    content = json.loads(file.read_text(encoding="utf-8"))
    names = ("frames", "labels", "references", "gallery")
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
    return Pictures(**arrays, scenes=content["scenes"], gallery_identities=np.array(content["gallery"]))
