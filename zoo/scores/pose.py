"""Scores of the pose detector: average precision as ultralytics computes it, and people who overlap."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from ultralytics.utils.metrics import OKS_SIGMA, ap_per_class, box_iou, kpt_iou

from mcpipe.core.progress import track
from mcpipe.models.pose import UltralyticsPose
from mcpipe.models.protocols import People
from mcpipe.world.identities import sample_identity
from mcpipe.world.scene import PersonTruth, RenderedFrame, Scene, render, sample_scene
from zoo.build.crops import FRAME
from zoo.build.data import SOFT_RANGE, SOFT_SHARE, sample_zoo_scene, softened
from zoo.scores.draw import LATEST_S, Job, containment, stream, visible_box
from zoo.scores.figures import Figure

NUM_FRAMES = 250
NUM_OVERLAPPING = 60
LEAST_SCORE = 0.001
"""Certainty from which detections enter a curve of precision (ultralytics' own for validation)."""

SURE = 0.4
"""Minimum score of a detected person, as in params.yaml."""

BODY_AREA = 0.53
"""A body's area against its box's (ultralytics' own, for the similarity of keypoints)."""

OVERLAPPING = 0.15
"""Part of the smaller box inside the larger one from which two people count as overlapping: about the closest
quarter of the world's two-shots."""

CLOSER = (0.55, 0.8)
"""Distance of two people who are moved together, against where the world puts them."""


@dataclass(frozen=True)
class Kind:
    """A kind of frames: shares of close shots and of scenes with four people."""

    close_share: float = 0.0
    crowd_share: float = 0.0


SHOTS = {"": Kind(), "close_": Kind(close_share=1.0), "crowd_": Kind(close_share=0.5, crowd_share=1.0)}
"""Prefix of the figures on far and on close shots and on four people, and what is drawn for them."""


def measure(job: Job) -> list[Figure]:
    """Draw frames and measure detections in them."""
    careful = UltralyticsPose(job.zoo / "pose" / "pose.pt", LEAST_SCORE)
    together = [finds_both(careful, frame) for frame in track(overlapping(job.seed), NUM_OVERLAPPING, "overlapping")]
    closer = [finds_both(careful, frame) for frame in track(pushed(job.seed), NUM_OVERLAPPING, "pushed together")]
    return [
        *(figure for prefix, kind in SHOTS.items() for figure in detection_figures(careful, job.seed, prefix, kind)),
        Figure("overlapping_stay_two", float(np.mean(together)), len(together), "frames", 0.95, ours=True),
        Figure("pushed_together_stay_two", float(np.mean(closer)), len(closer), "frames"),
    ]


def detection_figures(careful: UltralyticsPose, seed: int, prefix: str, kind: Kind) -> list[Figure]:
    """Precision and counts on frames of a kind."""
    hits: list[tuple[np.ndarray, np.ndarray]] = []
    certain: list[float] = []
    people, exact = 0, []
    for frame in track(frames(seed, kind), NUM_FRAMES, f"{prefix}pose"):
        truth = [person for person in frame.people if person.box is not None]
        detections = careful.people(frame.rgb)
        hits.append(correct(truth, detections))
        certain += detections.scores.tolist()
        people += len(truth)
        exact.append(int((detections.scores >= SURE).sum()) == len(truth))
    box, joints = (precision(np.concatenate(hit), np.array(certain), people) for hit in zip(*hits, strict=True))
    return [
        Figure(f"{prefix}box_map50", box, people, "people", 0.97),
        Figure(f"{prefix}pose_map50", joints, people, "people", 0.93),
        Figure(f"{prefix}exact_count", float(np.mean(exact)), len(exact), "frames"),
    ]


def frames(seed: int, kind: Kind, total: int = NUM_FRAMES) -> Iterator[RenderedFrame]:
    """Frames as the detectors' training draws them: nobody to four people, some look away, some images are soft."""
    for index in range(total):
        rng = stream(seed, "frames", index)
        scene = sample_zoo_scene(rng, kind.close_share, kind.crowd_share)
        frame = render(scene, float(rng.uniform(0.0, LATEST_S)), *FRAME)
        if rng.random() < SOFT_SHARE:
            frame = replace(frame, rgb=softened(frame.rgb, float(rng.uniform(*SOFT_RANGE))))
        yield frame


def correct(truth: list[PersonTruth], detections: People) -> tuple[np.ndarray, np.ndarray]:
    """Which detections (n,) have the box, and which the keypoints of a person that no surer one has."""
    if not truth:
        return np.zeros(len(detections.boxes), bool), np.zeros(len(detections.boxes), bool)
    boxes = torch.tensor(np.stack([visible_box(person) for person in truth]), dtype=torch.float32)
    joints = torch.tensor(np.stack([person.keypoints for person in truth]), dtype=torch.float32)
    joints[..., 2] = (joints[..., 2] > 0).float()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) * BODY_AREA
    by_box = box_iou(boxes, torch.from_numpy(detections.boxes))
    by_joints = kpt_iou(joints, torch.from_numpy(detections.keypoints), areas, OKS_SIGMA.tolist())
    return matched(by_box.numpy()), matched(by_joints.numpy())


def matched(similarity: np.ndarray) -> np.ndarray:
    """Which columns of (people, detections) get a person: the most similar first, from a half on, each once."""
    hits = np.zeros(similarity.shape[1], bool)
    taken = np.zeros(similarity.shape[0], bool)
    for place in np.argsort(-similarity, axis=None):
        person, detection = np.unravel_index(place, similarity.shape)
        if similarity[person, detection] >= 0.5 and not taken[person] and not hits[detection]:
            taken[person] = hits[detection] = True
    return hits


def precision(hits: np.ndarray, certain: np.ndarray, people: int) -> float:
    """Average precision of detections, all of one class."""
    precision_at = np.zeros(len(hits))
    return float(ap_per_class(hits[:, None], certain, precision_at, np.zeros(people))[5].mean())


def overlapping(seed: int, total: int = NUM_OVERLAPPING) -> Iterator[RenderedFrame]:
    """Two-shots of the world in which the boxes overlap, the others thrown away."""
    index = drawn = 0
    while drawn < total:
        frame = _two_shot(seed, index, None)
        index += 1
        if containment(*(visible_box(person) for person in frame.people)) >= OVERLAPPING:
            drawn += 1
            yield frame


def pushed(seed: int, total: int = NUM_OVERLAPPING) -> Iterator[RenderedFrame]:
    """Two people closer to each other than the world puts them."""
    for index in range(total):
        yield _two_shot(seed, index, CLOSER)


def _two_shot(seed: int, index: int, closer: tuple[float, float] | None) -> RenderedFrame:
    rng = stream(seed, "overlaps", index)
    scene = sample_scene(rng, [sample_identity(rng) for _ in range(2)])
    time_s = float(rng.uniform(0.0, LATEST_S))
    if closer is not None:
        scene = _closer(scene, float(rng.uniform(*closer)))
    return render(scene, time_s, *FRAME)


def _closer(scene: Scene, factor: float) -> Scene:
    middle = float(np.mean([person.x for person in scene.people]))
    people = (replace(person, x=middle + factor * (person.x - middle)) for person in scene.people)
    return replace(scene, people=tuple(people))


def finds_both(detector: UltralyticsPose, frame: RenderedFrame) -> bool:
    """Whether exactly two people are detected."""
    return int((detector.people(frame.rgb).scores >= SURE).sum()) == 2
