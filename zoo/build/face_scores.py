"""How good a face pack is, measured through the adapter that the pipeline uses, on people it never saw."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from mcpipe.models.protocols import FaceAnalyser, Faces
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.scene import PersonTruth, RenderedFrame, render, render_portrait, sample_scene
from zoo.build.data import NAMESPACE, Frames

SAME_IOU = 0.5
CLEARLY_VISIBLE = 0.6
"""Share of a face that must show for it to count as missed."""

SCENES = 2
TIMES_S = (0.0, 1.0)
GENERATED_SIDE = 96
"""Side in pixels of the tiny generator's images."""

PORTRAIT_SIDE = 160
STREAM = 7
"""Stream of the zoo's random numbers for people who appear in no training image."""


@dataclass
class Tally:
    """Counts of true and detected faces."""

    wanted: int = 0
    overlaps: list[float] = field(default_factory=list)
    landmark_errors: list[float] = field(default_factory=list)
    """Mean distance over the larger side of the face."""
    false: int = 0
    pictures: int = 0

    def add(self, people: "Sequence[PersonTruth] | Sequence[StoredFace]", faces: Faces) -> list[tuple[int, int]]:
        """Count one image; returns pairs of a person's and a face's index."""
        self.pictures += 1
        pairs = []
        for index, person in enumerate(people):
            if person.face_visible < CLEARLY_VISIBLE:
                continue
            self.wanted += 1
            overlaps = [_iou(person.face_box, box) for box in faces.boxes]
            if overlaps and max(overlaps) >= SAME_IOU:
                best = int(np.argmax(overlaps))
                pairs.append((index, best))
                self.overlaps.append(overlaps[best])
                size = float(max(person.face_box[2:] - person.face_box[:2]))
                apart = np.linalg.norm(faces.landmarks[best] - person.landmarks, axis=1).mean()
                self.landmark_errors.append(float(apart) / size)
        self.false += sum(all(_iou(person.face_box, box) < 0.1 for person in people) for box in faces.boxes)
        return pairs

    def metrics(self, name: str) -> dict[str, float]:
        """Named figures."""
        return {
            f"{name}_recall": len(self.overlaps) / max(self.wanted, 1),
            f"{name}_false_per_picture": self.false / max(self.pictures, 1),
            f"{name}_box_iou": float(np.mean(self.overlaps)),
            f"{name}_landmark_error": float(np.mean(self.landmark_errors)),
        }


def scores(faces: FaceAnalyser, frames: Frames, seed: int, num_pairs: int) -> dict[str, float]:
    """Figures of detection on the frames, and of detection and recognition on new people in three kinds of image."""
    tally = Tally()
    for index in range(len(frames)):
        tally.add(_people(frames, index), faces.faces(frames.rgb[index]))
    metrics = tally.metrics("frame")
    for kind in ("scene", "generated", "portrait"):
        tally, embeddings, who, where = Tally(), [], [], []
        for pair, session, frame in _sessions(seed, num_pairs, kind):
            detections = faces.faces(frame.rgb)
            for person, face in tally.add(frame.people, detections):
                embeddings.append(detections.embeddings[face])
                who.append(frame.people[person].identity.key)
                where.append((pair, session))
        metrics |= {f"{kind}_recall": tally.metrics(kind)[f"{kind}_recall"]}
        if kind != "portrait":
            metrics |= {f"{kind}_{name}": value for name, value in separation(embeddings, who, where).items()}
    return metrics


def separation(embeddings: list[np.ndarray], who: list[str], where: list[tuple[int, int]]) -> dict[str, float]:
    """Cosines of the same person in two scenes against those of different people."""
    vectors = np.stack(embeddings)
    cosines = vectors @ vectors.T
    same = np.array(who)[:, None] == np.array(who)[None]
    places = np.array([pair * SCENES + session for pair, session in where])
    apart = places[:, None] != places[None]
    upper = np.triu(np.ones_like(same), k=1)
    mine, others = cosines[same & apart & upper], cosines[~same & upper]
    return {
        "same_cosine": float(mine.mean()),
        "same_cosine_p10": float(np.quantile(mine, 0.1)),
        "other_cosine": float(others.mean()),
        "other_cosine_p99": float(np.quantile(others, 0.99)),
        "other_cosine_p999": float(np.quantile(others, 0.999)),
        "tar_at_far_1e2": float((mine > np.quantile(others, 0.99)).mean()),
        "tar_at_far_1e3": float((mine > np.quantile(others, 0.999)).mean()),
    }


def _sessions(seed: int, num_pairs: int, kind: str) -> Iterator[tuple[int, int, RenderedFrame]]:
    """Images of pairs of new people: in scenes, in scenes at the generator's size, or one by one as portraits."""
    for pair in range(num_pairs):
        identities = [sample_identity(world_rng(NAMESPACE, seed, STREAM, pair, index)) for index in range(2)]
        for session in range(SCENES):
            rng = world_rng(NAMESPACE, seed, STREAM + 1, pair, session)
            if kind == "portrait":
                yield pair, session, render_portrait(identities[session], rng, PORTRAIT_SIDE)
                continue
            scene = sample_scene(rng, identities)
            for time_s in TIMES_S:
                frame = render(scene, time_s, 320, 240)
                yield pair, session, generated_size(frame) if kind == "generated" else frame


def generated_size(frame: RenderedFrame) -> RenderedFrame:
    """The middle square of a frame at the generator's size, with the truth about faces moved along."""
    height, width = frame.labels.shape
    left = (width - height) // 2
    factor = GENERATED_SIDE / height
    small = cv2.resize(frame.rgb[:, left : left + height], (GENERATED_SIDE,) * 2, interpolation=cv2.INTER_AREA)
    people = tuple(
        PersonTruth(**(vars(person) | {
            "face_box": (person.face_box - [left, 0, left, 0]) * factor,
            "landmarks": (person.landmarks - [left, 0]) * factor,
        }))
        for person in frame.people
    )  # fmt: skip
    return RenderedFrame(small, frame.labels, people)


@dataclass(frozen=True)
class StoredFace:
    """The part of a person's truth that `Tally` needs."""

    face_box: np.ndarray
    landmarks: np.ndarray
    face_visible: float


def _people(frames: Frames, index: int) -> list[StoredFace]:
    return [
        StoredFace(frames.face_boxes[index, person], frames.landmarks[index, person], float(visible))
        for person, visible in enumerate(frames.face_visible[index])
        if not np.isnan(visible)
    ]


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    shared = np.clip(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0, None).prod()
    both = (first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod() - shared
    return float(shared / max(both, 1e-9))
