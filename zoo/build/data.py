"""Images with their truth for detector, segmenter and recogniser, rendered once.

``frames_train.npz`` and ``frames_val.npz`` hold scenes of 0 to 4 people; ``faces.npz`` aligned faces of many people
in many scenes. Identities come from the namespace "zoo", so none of them appears in a clip or in the face pool, and
those of the validation frames appear in no training image.
"""

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from insightface.utils import face_align
from pydantic import Field

from mcpipe.core.params import Params
from mcpipe.core.progress import track
from mcpipe.core.shards import whole_folder
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.scene import RenderedFrame, Scene, render, render_portrait, sample_scene
from zoo.build.crowds import CROWD, sample_crowded, sample_framing

NAMESPACE = "zoo"
MOST_PEOPLE = CROWD
COUNT_SHARES = (0.04, 0.18, 0.62, 0.16)
"""Shares of scenes with 0, 1, 2 and 3 people, where it is not a crowd."""

AWAY_SHARE = 0.10
"""Share of scenes in which one person looks away."""

AWAY_YAW_RANGE = (2.2, 4.0)
SOFT_SHARE = 0.35
SOFT_RANGE = (0.30, 0.80)
"""Share of frames that are shrunk by a factor of the range and enlarged again, as images of the generator are."""

ARC_SIZE = 112
"""Side of an aligned face in pixels (ArcFace)."""

JITTER_SHARE = 0.05
"""Standard deviation of the landmarks by which training faces are aligned, in head radii: what a detector misses."""

SECONDS = 2.0
"""Scenes are seen at a random time up to this."""


class DataParams(Params):
    """How much to render."""

    seed: int
    """Seed of the zoo's world."""
    width: int = Field(ge=64)
    """Width of a frame, in pixels."""
    height: int = Field(ge=64)
    """Height of a frame, in pixels."""
    train_frames: int = Field(ge=1)
    """Scenes to train the detectors and the segmenter on."""
    val_frames: int = Field(ge=1)
    """Scenes to measure them on."""
    face_identities: int = Field(ge=2)
    """People to train the recogniser on; an even number."""
    face_views: int = Field(ge=2)
    """Images of each."""
    close_share: float = Field(ge=0, le=1)
    """Share of scenes that are close shots."""
    crowd_share: float = Field(default=0.0, ge=0, le=1)
    """Share of scenes with four people."""
    workers: int = Field(ge=1)
    """Processes that render; they do not change the result."""


@dataclass(frozen=True)
class Frames:
    """Scenes with their truth; places of absent people are filled with NaN."""

    rgb: np.ndarray
    """(n, H, W, 3) uint8."""
    labels: np.ndarray
    """(n, H, W) uint8, as in `RenderedFrame`."""
    boxes: np.ndarray
    """(n, 4, 4)."""
    keypoints: np.ndarray
    """(n, 4, 17, 3)."""
    face_boxes: np.ndarray
    """(n, 4, 4)."""
    landmarks: np.ndarray
    """(n, 4, 5, 2)."""
    face_visible: np.ndarray
    """(n, 4) in [0, 1]."""

    def __len__(self) -> int:
        """How many frames."""
        return len(self.rgb)


def build(out: Path, params: DataParams) -> None:
    """Render frames and faces into the folder ``out``."""
    # Spawned, because a forked copy of a process with threads can hang.
    with whole_folder(out) as folder, ProcessPoolExecutor(params.workers, get_context("spawn")) as pool:
        for split, (name, total) in enumerate((("train", params.train_frames), ("val", params.val_frames))):
            jobs = [(params, split, number) for number in range(total)]
            drawn = list(track(pool.map(_frame, jobs, chunksize=20), total, f"{name} frames"))
            np.savez(folder / f"frames_{name}.npz", **dataclasses.asdict(_stacked(drawn)))
        rounds = [(params, number) for number in range(params.face_views)]
        views = np.stack(list(track(pool.map(_face_views, rounds), len(rounds), "views of faces")), axis=1)
        np.savez(folder / "faces.npz", crops=views)


def read_frames(file: Path) -> Frames:
    """Frames written by `build`."""
    with np.load(file) as stored:
        return Frames(**{field.name: stored[field.name] for field in dataclasses.fields(Frames)})


def sample_zoo_scene(rng: np.random.Generator, close_share: float = 0.0, crowd_share: float = 0.0) -> Scene:
    """A scene of 0 to 3 new people, or in a share of all cases of four; now and then one of them looks away."""
    count = int(rng.choice(len(COUNT_SHARES), p=COUNT_SHARES))
    if sample_crowded(rng, crowd_share):
        count = CROWD
    framing = sample_framing(rng, close_share)
    scene = sample_scene(rng, [sample_identity(rng) for _ in range(count)], framing=framing)
    if count == 0 or rng.random() > AWAY_SHARE:
        return scene
    turned = int(rng.integers(count))
    people = list(scene.people)
    person = people[turned]
    yaw = dataclasses.replace(person.sways["yaw"], rest=float(rng.uniform(*AWAY_YAW_RANGE)))
    people[turned] = dataclasses.replace(person, sways=person.sways | {"yaw": yaw})
    return dataclasses.replace(scene, people=tuple(people))


def softened(rgb: np.ndarray, factor: float) -> np.ndarray:
    """An image shrunk by a factor and enlarged to its old size."""
    height, width = rgb.shape[:2]
    small = cv2.resize(rgb, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def _frame(job: tuple[DataParams, int, int]) -> RenderedFrame:
    params, split, number = job
    cv2.setNumThreads(1)
    rng = world_rng(NAMESPACE, params.seed, split, number)
    scene = sample_zoo_scene(rng, params.close_share, params.crowd_share)
    frame = render(scene, float(rng.uniform(0.0, SECONDS)), params.width, params.height)
    if rng.random() < SOFT_SHARE:
        frame = dataclasses.replace(frame, rgb=softened(frame.rgb, float(rng.uniform(*SOFT_RANGE))))
    return frame


def _stacked(frames: list[RenderedFrame]) -> Frames:
    def padded(shape: tuple[int, ...]) -> np.ndarray:
        return np.full((len(frames), MOST_PEOPLE, *shape), np.nan, np.float32)

    truth = Frames(
        rgb=np.stack([frame.rgb for frame in frames]),
        labels=np.stack([frame.labels for frame in frames]),
        boxes=padded((4,)),
        keypoints=padded((17, 3)),
        face_boxes=padded((4,)),
        landmarks=padded((5, 2)),
        face_visible=padded(()),
    )
    for number, frame in enumerate(frames):
        for index, person in enumerate(frame.people):
            if person.box is not None:
                truth.boxes[number, index] = person.box
                truth.keypoints[number, index] = person.keypoints
                truth.face_boxes[number, index] = person.face_box
                truth.landmarks[number, index] = person.landmarks
                truth.face_visible[number, index] = person.face_visible
    return truth


def _face_views(job: tuple[DataParams, int]) -> np.ndarray:
    """One aligned face (112, 112, 3) of every identity: all meet in new pairs, the first time each sits alone."""
    params, number = job
    cv2.setNumThreads(1)
    rng = world_rng(NAMESPACE, params.seed, 2, number)
    crops = np.zeros((params.face_identities, ARC_SIZE, ARC_SIZE, 3), np.uint8)
    for people, frame in _meetings(params, rng, alone=number == 0):
        for index, person in zip(people, frame.people, strict=True):
            noise = rng.normal(0.0, JITTER_SHARE * 0.5 * person.head_height_px, (5, 2))
            crops[index] = face_align.norm_crop(frame.rgb, (person.landmarks + noise).astype(np.float32), ARC_SIZE)
    return crops


def _meetings(
    params: DataParams, rng: np.random.Generator, *, alone: bool
) -> Iterator[tuple[list[int], RenderedFrame]]:
    order = [int(index) for index in rng.permutation(params.face_identities)]
    size = 1 if alone else 2
    for start in range(0, len(order), size):
        people = order[start : start + size]
        identities = [sample_identity(world_rng(NAMESPACE, params.seed, 3, index)) for index in people]
        if alone:
            yield people, render_portrait(identities[0], rng, params.height)
        else:
            scene = sample_scene(rng, identities, framing=sample_framing(rng, params.close_share))
            yield people, render(scene, float(rng.uniform(0.0, SECONDS)), params.width, params.height)
