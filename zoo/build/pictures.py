"""Training images of everything that sees whole scenes or reads captions: squares with all people, and references.

An image set is a folder: ``frames.npy`` (N, 240, 320, 3), ``labels.npy`` (N, 60, 80) who or what every fourth pixel
shows (`mcpipe.world.scene.RenderedFrame`), ``references.npy`` (M, 84, 84, 4) face crops with a mask as
fourth channel, ``gallery.npy`` (G, 96, 96, 3) heads and shoulders of people who appear several times, and
``pictures.json`` with their ground truth. Identities come from the namespace "zoo" and appear nowhere else.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from pydantic import Field

from mcpipe.core.params import Params
from mcpipe.core.progress import track
from mcpipe.world.captions import attributes, describe_face, describe_person, describe_scene, describe_setting
from mcpipe.world.identities import GEOMETRY_RANGES, Identity, sample_identity, world_rng
from mcpipe.world.lookalikes import look_alike
from mcpipe.world.scene import OBJECT_LABEL, RenderedFrame, Scene, mask_box, render, render_portrait, sample_scene
from mcpipe.world.setting import CLOSE, FAR, Framing
from zoo.build.crops import FRAME, SQUARE, face_crop, square_left

REFERENCE = 84
GALLERY = 96
PORTRAIT = 160
COUNT_SHARES = {1: 0.15, 2: 0.70, 3: 0.15}
"""How often an image shows one, two or three people."""

LATEST_S = 1.0
SECONDS_BETWEEN = (0.6, 1.4)
"""Time from the reference's frame to the target's."""

PORTRAIT_SHARE = 0.5
"""References cut from portraits of the face pool's kind; the others come from an earlier frame of the same scene."""

REFERENCE_SCALES = (1.1, 1.9)
GALLERY_SCALE = 2.3
"""Sides of square crops around a face, in longer sides of its box."""

INVENTED = 3
"""Number of invented scenes for the same people, which serve as prompts."""

COARSER = 4
"""Pixels of a frame per label, in each direction."""

PER_SCENE = 2
SPLITS = {"train": 0, "test": 1}

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
    alike_share: float = Field(ge=0, le=1)
    """Share of pairs in which one person is a look-alike of the other (`mcpipe.world.lookalikes`)."""
    scene_captions: int = Field(ge=0)
    """Captions in the form "scene" for each scene, beside the one in the form "people"."""


def build(out: Path, params: PicturesParams) -> None:
    """Render the training and the test set into ``out/train`` and ``out/test``."""
    sizes = {
        "train": (params.num_scenes, params.num_gallery_identities),
        "test": (params.num_test_scenes, params.num_test_gallery_identities),
    }
    for split, (num_scenes, num_identities) in sizes.items():
        look = Look(params.close_share, params.alike_share, params.scene_captions)
        write_pictures(
            out / split, partial(world_rng, "zoo"), split, (num_scenes, num_identities, params.gallery_pictures), look
        )


@dataclasses.dataclass(frozen=True)
class Look:
    """Settings of scenes and of their captions."""

    close_share: float = 0.0
    """Share of close shots, in [0, 1]."""
    alike_share: float = 0.0
    """Share of pairs who are look-alikes, in [0, 1]."""
    scene_captions: int = 0
    """Captions in the form "scene" per scene."""


FAR_LOOK = Look()


def write_pictures(
    folder: Path, stream: Stream, split: str, sizes: tuple[int, int, int], look: Look = FAR_LOOK
) -> None:
    """Render an image set: numbers of scenes, of people and of their appearances, drawn from ``stream``."""
    num_scenes, num_identities, appearances = sizes
    folder.mkdir(parents=True, exist_ok=True)
    scenes = _write_scenes(folder, stream, split, num_scenes, look)
    gallery = _write_gallery(folder, stream, split, num_identities, appearances)
    (folder / "pictures.json").write_text(json.dumps({"scenes": scenes, "gallery": gallery}), encoding="utf-8")


def _settings(scene: Scene, rng: np.random.Generator, total: int) -> dict[str, list[str]]:
    """``total`` captions in the form "scene" of a scene and of its mirror image, and of invented scenes.

    Empty if ``total`` is 0.
    """
    if not total:
        return {}
    mirrored = dataclasses.replace(scene, people=tuple(reversed(scene.people)))
    scenes = {"settings": scene, "mirrored_settings": mirrored}
    people = [person.identity for person in scene.people]
    invented = [describe_setting(sample_scene(rng, people), rng) for _ in range(INVENTED)]
    return {"invented_settings": invented} | {
        name: [describe_setting(variant, rng) for _ in range(total)] for name, variant in scenes.items()
    }


def _write_scenes(folder: Path, stream: Stream, split: str, total: int, look: Look) -> list[dict]:
    frames = _array(folder / "frames.npy", (total, FRAME[1], FRAME[0], 3))
    labels = _array(folder / "labels.npy", (total, FRAME[1] // COARSER, FRAME[0] // COARSER))
    references: list[np.ndarray] = []
    records = []
    for index in track(range(total), total, f"rendering {split} scenes"):
        rng, extra = stream(100 + SPLITS[split], index), stream(300 + SPLITS[split], index)
        count = int(rng.choice(list(COUNT_SHARES), p=list(COUNT_SHARES.values())))
        people = [sample_identity(rng) for _ in range(count)]
        if count == PER_SCENE and extra.random() < look.alike_share:
            people[1] = look_alike(extra, people[0])
        framing = CLOSE if extra.random() < look.close_share else FAR
        scene = sample_scene(rng, people, framing=framing)
        start = float(rng.uniform(0, LATEST_S))
        frame = render(scene, start + float(rng.uniform(*SECONDS_BETWEEN)), *FRAME)
        frames[index] = frame.rgb
        labels[index] = frame.labels[COARSER // 2 :: COARSER, COARSER // 2 :: COARSER]
        records.append(
            _record(scene, frame, framing, rng)
            | _settings(scene, extra, look.scene_captions)
            | {"first_reference": len(references)}
        )
        references += _references(render(scene, start, *FRAME), people, rng)
    frames.flush()
    labels.flush()
    np.save(folder / "references.npy", np.stack(references))
    return records


def _write_gallery(folder: Path, stream: Stream, split: str, num_identities: int, appearances: int) -> list[int]:
    rng = stream(200 + SPLITS[split])
    people = [sample_identity(rng) for _ in range(num_identities)]
    order = np.concatenate([rng.permutation(num_identities) for _ in range(appearances)])
    order = order[: len(order) // PER_SCENE * PER_SCENE].reshape(-1, PER_SCENE)
    gallery = _array(folder / "gallery.npy", (order.size, GALLERY, GALLERY, 3))
    for index, pair in enumerate(track(order, len(order), f"rendering {split} gallery")):
        frame = render(sample_scene(rng, [people[who] for who in pair]), float(rng.uniform(0, 2)), *FRAME)
        for seat, person in enumerate(frame.people):
            crop = face_crop(frame.rgb, person.face_box, GALLERY_SCALE, GALLERY)
            gallery[PER_SCENE * index + seat] = crop
    gallery.flush()
    return [int(who) for who in order.ravel()]


def _record(scene: Scene, frame: RenderedFrame, framing: Framing, rng: np.random.Generator) -> dict:
    """Ground truth of a frame and of its square, as JSON."""
    left = square_left(frame, rng, framing)
    people = [person.identity for person in scene.people]
    mirrored = dataclasses.replace(scene, people=tuple(reversed(scene.people)))
    return {
        "left": left,
        "caption": describe_scene(scene),
        "mirrored_caption": describe_scene(mirrored),
        "people": [describe_person(person.identity, person.outfit) for person in scene.people],
        "traits": [describe_face(identity) for identity in people],
        "attributes": [attributes(person.identity, person.outfit) for person in scene.people],
        "traits_vectors": [[round(value, 4) for value in traits_vector(identity)] for identity in people],
        "held": [_held_box(frame, seat, left) for seat in range(len(people))],
        "faces": [(person.face_box - [left, 0, left, 0]).round(1).tolist() for person in frame.people],
        "invented": [describe_scene(sample_scene(rng, people)) for _ in range(INVENTED)],
    }


def traits_vector(identity: Identity) -> list[float]:
    """The lasting traits as numbers in about [-1, 1]: skin, hair and eyes (red, green, blue), then the geometry.

    The colour of invisible hair is 0.
    """
    hairless = identity.hair_cut == "bald" and identity.facial_hair == "none"
    hair = (0.0, 0.0, 0.0) if hairless else tuple(value / 127.5 - 1 for value in identity.hair_rgb)
    eyes = tuple(value / 127.5 - 1 for value in identity.eye_rgb)
    shape = [
        2 * (getattr(identity.geometry, name) - low) / (high - low) - 1 for name, (low, high) in GEOMETRY_RANGES.items()
    ]
    return [2 * identity.skin - 1, *hair, *eyes, *shape]


def _held_box(frame: RenderedFrame, seat: int, left: int) -> list[float] | None:
    """Box of a person's held object in the square, if it is visible."""
    box = mask_box(frame.labels == seat + 1 + OBJECT_LABEL)
    return None if box is None else (box - [left, 0, left, 0]).tolist()


def _references(early: RenderedFrame, people: Sequence[Identity], rng: np.random.Generator) -> list[np.ndarray]:
    """One face crop of each person, from a portrait or from the earlier frame, with the person's mask."""
    crops = []
    for seat, identity in enumerate(people):
        alone = rng.random() < PORTRAIT_SHARE
        frame = render_portrait(identity, rng, PORTRAIT) if alone else early
        index = 0 if alone else seat
        mask = (frame.labels == index + 1).astype(np.uint8) * 255
        four = np.dstack([frame.rgb, mask])
        crops.append(face_crop(four, frame.people[index].face_box, float(rng.uniform(*REFERENCE_SCALES)), REFERENCE))
    return crops


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
