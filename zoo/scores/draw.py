"""A freshly drawn world: people, scenes, squares and clips that depend on the seed of the scores alone.

Everything comes from streams of the namespace "zoo-scores"; training, clips, face pool and benchmark use others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mcpipe.world.captions import describe_scene
from mcpipe.world.clips import WorldParams
from mcpipe.world.identities import Identity, sample_identity, world_rng
from mcpipe.world.scene import PersonTruth, RenderedFrame, Scene, render, sample_scene
from mcpipe.world.video import FORMATS, encode
from zoo.build.crops import FRAME, SQUARE, square_left
from zoo.build.pictures import COUNT_SHARES

NAMESPACE = "zoo-scores"
PARTS = ("frames", "overlaps", "clips", "pairs", "captions", "squares", "prompts", "choices", "references", "things")
"""Purposes of random numbers, each with its own stream; new parts go to the end."""

GENERATED = 96
"""Side in pixels of the tiny generator's images."""

LATEST_S = 2.0
CLIP = WorldParams(
    seed=0, width=FRAME[0], height=FRAME[1], fps=12, seconds=2.0, good_clips=0, bad_clips_per_kind=0, faces=0,
    portrait_size=160, shots="far", alike=0.0, num_people=2,
)  # fmt: skip
"""Clips as the default run renders them."""


@dataclass(frozen=True)
class Job:
    """A measurement: the checkpoints and the world."""

    zoo: Path
    """Folder of the checkpoints."""
    seed: int
    """Seed of the world."""
    sheet: Path
    """Where the generator's contact sheet goes."""


def stream(seed: int, part: str, *numbers: int) -> np.random.Generator:
    """Random numbers of one of `PARTS`."""
    return world_rng(NAMESPACE, seed, PARTS.index(part), *numbers)


@dataclass(frozen=True)
class Square:
    """A scene as training samples and the generator show it."""

    scene: Scene
    rgb: np.ndarray
    """(240, 240, 3) uint8."""
    faces: np.ndarray
    """Boxes (n, 4) in its pixels, from left to right."""

    @property
    def caption(self) -> str:
        """Ground truth of the scene."""
        return describe_scene(self.scene)

    def sized(self, side: int) -> np.ndarray:
        """At another size, (side, side, 3)."""
        return cv2.resize(self.rgb, (side, side), interpolation=cv2.INTER_AREA)


def squares(seed: int, part: str, total: int) -> Iterator[Square]:
    """Scenes of one to three new people in the shares of the zoo's images."""
    for index in range(total):
        rng = stream(seed, part, index)
        count = int(rng.choice(list(COUNT_SHARES), p=list(COUNT_SHARES.values())))
        scene = sample_scene(rng, [sample_identity(rng) for _ in range(count)])
        yield square_of(scene, render(scene, float(rng.uniform(0.0, LATEST_S)), *FRAME), rng)


def square_of(scene: Scene, frame: RenderedFrame, rng: np.random.Generator) -> Square:
    """The square of full height around everybody."""
    left = square_left(frame, rng)
    faces = np.stack([person.face_box for person in frame.people]) - [left, 0, left, 0]
    return Square(scene, frame.rgb[:, left : left + SQUARE], faces)


def person_of(seed: int, part: str, index: int) -> Identity:
    """One of the people who appear in several scenes of a part."""
    return sample_identity(stream(seed, part, 0, index))


def meetings(seed: int, part: str, num_people: int, rounds: int) -> Iterator[tuple[int, tuple[int, int], Scene]]:
    """Scenes of two in which everybody appears once a round, in other company and clothes.

    Yields the scene's number, its people's and the scene; ``num_people`` is even.
    """
    people = [person_of(seed, part, index) for index in range(num_people)]
    for turn in range(rounds):
        rng = stream(seed, part, 1, turn)
        for number, pair in enumerate(rng.permutation(num_people).reshape(-1, 2)):
            scene = sample_scene(stream(seed, part, 2, turn, number), [people[who] for who in pair])
            yield turn * (num_people // 2) + number, (int(pair[0]), int(pair[1])), scene


def write_video(folder: Path, number: int, scene: Scene) -> tuple[Path, tuple[RenderedFrame, RenderedFrame]]:
    """Film a scene into a video file, formats taking turns; its path and the truth of initial and middle frame."""
    total = round(CLIP.seconds * CLIP.fps)
    frames = [render(scene, index / CLIP.fps, CLIP.width, CLIP.height) for index in range(total)]
    place = number % len(FORMATS)
    file = folder / f"clip_{number:04d}.{FORMATS[place][0]}"
    encode(file, (frame.rgb for frame in frames), place, (CLIP.width, CLIP.height), CLIP.fps)
    return file, (frames[0], frames[total // 2])


def visible_box(person: PersonTruth) -> np.ndarray:
    """The box of a visible person."""
    assert person.box is not None
    return person.box


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    shared = _shared(first, second)
    return shared / max(_area(first) + _area(second) - shared, 1e-9)


def containment(first: np.ndarray, second: np.ndarray) -> float:
    """Part of the smaller of two boxes inside the larger, in [0, 1]."""
    return _shared(first, second) / max(min(_area(first), _area(second)), 1e-9)


def best_overlap(box: np.ndarray, boxes: Sequence[np.ndarray] | np.ndarray) -> tuple[int, float]:
    """The index of the box with the largest overlap, and the overlap; (-1, 0) without boxes."""
    overlaps = [overlap(box, other) for other in boxes]
    return (int(np.argmax(overlaps)), max(overlaps)) if overlaps else (-1, 0.0)


def _shared(first: np.ndarray, second: np.ndarray) -> float:
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    return float(np.clip(sides, 0, None).prod())


def _area(box: np.ndarray) -> float:
    return float(np.prod(box[2:] - box[:2]))
