"""The face detector: SCRFD's outputs learned from the world's frames at many scales."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder
from zoo.build.data import Frames, read_frames
from zoo.build.face_nets import ANCHORS, STRIDES, FaceDetector, ScrfdExport, export_onnx
from zoo.build.training import FitParams, Loss, fit, half_precision, settle

SIZE = 256
"""Side of a training image in pixels; the net is convolutional and runs at any multiple of 32."""

BACKS_SHARE = 0.3
"""Share of training images drawn from the frames in which somebody looks away: nothing is more like a face."""

LEAST_VISIBLE = 0.45
LEAST_FACE_PX = 14
"""Minimum visible share and width of a face that should be detected."""

LEVEL_LIMITS = (40.0, 100.0)
"""Longer side of a face in pixels up to which the first and the second stride answer for it."""

REACH = 0.22
"""Anchors this far from a face's centre answer for it, in face sizes."""

LARGEST_FACE = 0.95
"""Longer side of a face against the image's beyond which a zoom is reduced."""

FILE = "det.onnx"
CURVES = "curves.json"

SCORE_WEIGHT, DISTANCE_WEIGHT, LANDMARK_WEIGHT = 2.0, 0.5, 12.0
"""Weights of the terms of the loss, against the overlap of boxes."""

MEAN, SCALE = 127.5, 128.0
"""InsightFace's normalisation of a detector's input."""


class FaceDetectorParams(Params):
    """Recipe of the face detector."""

    width: int = Field(ge=8, multiple_of=2)
    """Channels at stride 4."""
    smallest: float = Field(gt=0)
    """Zoom of the training images, at least."""
    largest: float = Field(gt=0)
    """And at most."""
    fit: FitParams


class Anchors:
    """Centres (A, 2) and strides (A,) of all anchors of a square image, in the order of the outputs."""

    def __init__(self, size: int) -> None:
        """Lay out the anchors."""
        centres, strides = [], []
        for stride in STRIDES:
            grid = np.stack(np.mgrid[: size // stride, : size // stride][::-1], axis=-1).reshape(-1, 2) * stride
            centres.append(np.repeat(grid, ANCHORS, axis=0))
            strides.append(np.full(len(grid) * ANCHORS, stride))
        self.centres = np.concatenate(centres).astype(np.float32)
        self.strides = np.concatenate(strides).astype(np.float32)

    def targets(self, boxes: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which anchors answer (A,), and edges (A, 4) and landmarks (A, 10) in strides, of faces in one image."""
        positive = np.zeros(len(self.centres), np.float32)
        edges, points = (np.zeros((len(self.centres), numbers), np.float32) for numbers in (4, 10))
        for box, five in zip(boxes, landmarks, strict=True):
            size = max(box[2] - box[0], box[3] - box[1])
            stride = STRIDES[int(np.searchsorted(LEVEL_LIMITS, size))]
            apart = np.abs(self.centres - (box[:2] + box[2:]) / 2).max(axis=1)
            mine = (self.strides == stride) & (apart < max(REACH * size, 0.75 * stride))
            centres = self.centres[mine]
            positive[mine] = 1.0
            edges[mine] = np.concatenate([centres - box[:2], box[2:] - centres], axis=1) / stride
            points[mine] = ((five[None] - centres[:, None]) / stride).reshape(-1, 10)
        return positive, edges, points


def build(data: Path, out: Path, params: FaceDetectorParams) -> None:
    """Train on the images in ``data`` and write ``det.onnx`` and the loss curves to the folder ``out``."""
    scratch = out.with_name(f"{out.name}.resume")
    with whole_folder(out) as folder:
        curves = train_face_detector(data, folder / FILE, scratch, params)
        (folder / CURVES).write_text(json.dumps(curves), encoding="utf-8")


def train_face_detector(data: Path, file: Path, scratch: Path, params: FaceDetectorParams) -> dict[str, list[float]]:
    """Train on the frames of ``data``, write ``file`` and return the loss curves; ``scratch`` keeps the progress."""
    settle(params.fit.seed)
    frames, anchors, net = read_frames(data / "frames_train.npz"), Anchors(SIZE), FaceDetector(params.width)

    backs = np.flatnonzero((frames.face_visible == 0).any(axis=1))

    def loss_of(_step: int, rng: np.random.Generator) -> Loss:
        pictures, targets = [], []
        for _ in range(params.fit.batch):
            picture, boxes, landmarks = zoomed(frames, backs, rng, (params.smallest, params.largest))
            pictures.append(picture)
            targets.append(anchors.targets(boxes, landmarks))
        x = (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() - MEAN) / SCALE
        with half_precision():
            predicted = net(x.contiguous(memory_format=torch.channels_last))
        expected = [torch.from_numpy(np.stack(part)) for part in zip(*targets, strict=True)]
        return detection_loss([part.float() for part in predicted], expected)

    net.to(memory_format=torch.channels_last)
    curves = fit([net], loss_of, params.fit, scratch)
    names = [f"{kind}_{stride}" for kind in ("score", "bbox", "kps") for stride in STRIDES]
    export_onnx(ScrfdExport(net.float()), torch.rand(1, 3, SIZE, SIZE), file, "input.1", names)
    return curves


def zoomed(
    frames: Frames, frames_with_backs: np.ndarray, rng: np.random.Generator, span: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random frame at a random zoom as a square image, with boxes (n, 4) and landmarks (n, 5, 2) of its faces.

    ``frames_with_backs`` are the indices of those in which somebody looks away.
    """
    index = int(rng.choice(frames_with_backs)) if rng.random() < BACKS_SHARE else int(rng.integers(len(frames)))
    factor = float(np.exp(rng.uniform(*np.log(span))))
    heads = frames.face_boxes[index][~np.isnan(frames.face_visible[index])]
    present = frames.face_visible[index] > LEAST_VISIBLE
    boxes, landmarks = frames.face_boxes[index][present], frames.landmarks[index][present]
    middle = np.array([rng.uniform(0, frames.rgb.shape[2]), rng.uniform(0, frames.rgb.shape[1])])
    if len(heads) and factor > 1.0:
        centre = heads[int(rng.integers(len(heads)))]
        factor = min(factor, LARGEST_FACE * SIZE / float(max(centre[2:] - centre[:2])))
        spread = 0.5 * SIZE / factor - 0.5 * (centre[2:] - centre[:2])
        middle = (centre[:2] + centre[2:]) / 2 + rng.uniform(-1, 1, 2) * np.maximum(spread, 0)
    shift = 0.5 * SIZE - factor * middle
    move = np.array([[factor, 0, shift[0]], [0, factor, shift[1]]])
    border = tuple(rng.uniform(0, 255, 3)) if rng.random() < 0.3 else (0, 0, 0)
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    picture = cv2.warpAffine(frames.rgb[index], move, (SIZE, SIZE), flags=way, borderValue=border)
    boxes, landmarks = boxes * factor + np.tile(shift, 2), landmarks * factor + shift
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres > 0) & (centres < SIZE)).all(axis=1) & (boxes[:, 2] - boxes[:, 0] > LEAST_FACE_PX)
    return picture, boxes[inside], landmarks[inside]


def detection_loss(predicted: Sequence[Tensor], expected: Sequence[Tensor]) -> Loss:
    """Focal loss of scores; IoU and distance of edges and distance of landmarks where a face is."""
    scores, edges, points = predicted
    positive, true_edges, true_points = expected
    here = positive > 0
    count = here.sum().clamp(min=1)
    probability = scores.sigmoid()
    surprise = (1 - probability) * positive + probability * (1 - positive)
    entropy = functional.binary_cross_entropy_with_logits(scores, positive, reduction="none")
    focal = (entropy * surprise**2 * (0.75 * positive + 0.25 * (1 - positive))).sum() / count
    overlap = _iou(edges[here], true_edges[here])
    apart = functional.smooth_l1_loss(edges[here], true_edges[here], reduction="sum") / 4
    astray = functional.smooth_l1_loss(points[here], true_points[here], beta=0.05, reduction="sum") / 10
    return Loss(
        score=SCORE_WEIGHT * focal,
        box=((1 - overlap).sum() + DISTANCE_WEIGHT * apart) / count,
        landmarks=LANDMARK_WEIGHT * astray / count,
    )


def _iou(edges: Tensor, expected: Tensor) -> Tensor:
    """Overlap of boxes given by the distances (n, 4) of their edges from one point."""
    smaller = torch.minimum(edges, expected)
    shared = (smaller[:, 0] + smaller[:, 2]).clamp(min=0) * (smaller[:, 1] + smaller[:, 3]).clamp(min=0)
    first, second = ((e[:, 0] + e[:, 2]).clamp(min=0) * (e[:, 1] + e[:, 3]).clamp(min=0) for e in (edges, expected))
    return shared / (first + second - shared + 1e-6)
