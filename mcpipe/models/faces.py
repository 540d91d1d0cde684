"""Detection and recognition of faces by an InsightFace pack (a detector with five landmarks and an ArcFace recogniser).

A detector with a fixed input size misses faces that fill the image, and small ones. Hence it runs on every image twice:
with a border, for faces that fill the image, and without; equal detections count once. Without a border, the detector
may report parts of a face that fills the image, such as an eye or a half; these detections are removed.

The last digits of a network's output depend on the processor. Most of that is the layout of convolutions in blocks as
wide as its registers, which is not used here; the rest is rounded off (`mcpipe.core.rounding`).
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from mcpipe.core.rounding import DECIMALS, PIXEL_DECIMALS
from mcpipe.models.protocols import Faces, Picture

if TYPE_CHECKING:
    from insightface.app import FaceAnalysis
    from insightface.app.common import Face

BORDER = 0.5
"""Width of the border on each side, as a fraction of the image's longer side."""
SAME_FACE_IOU = 0.4
"""Minimum overlap of two boxes of one face."""
FILLS = 0.6
"""Part of the image's longer side from which a face is so large that its parts are detected as faces."""
PART_INSIDE, PART_AREA = 0.75, 0.65
"""Minimum part of a box inside the box of such a face, and maximum ratio of the areas, for a box to be a part of the
face."""
NUM_LANDMARKS = 5
EMBEDDING_WIDTH = 512
"""Width of the embeddings of every recogniser of the ArcFace family."""
LEAST_SIDE = 256
"""Minimum of an image's longer side; smaller images are enlarged (bicubic), because detectors are trained on larger
ones."""

LEAST_LIGHT = 100.0
"""Minimum brightness, 0-255, of an image's highlights for the detector, which misses dark faces."""


class InsightFaces:
    """A face analyser from a pack folder ``ROOT/models/NAME`` of ONNX files, loaded by InsightFace."""

    def __init__(self, folder: Path, min_score: float, detection_size: int) -> None:
        """Load the pack; ``detection_size`` is the side in pixels of the detector's input.

        Raises:
            FileNotFoundError: the folder does not exist or has no ONNX file.
            ValueError: a file is not an ONNX model, or the pack lacks a detector or a recogniser.

        """
        self.name = folder.name
        self._detection_size, self._min_score = detection_size, min_score
        self._app = _load(folder)
        lowest = max(min_score - 10.0**-DECIMALS, 0.0)
        self._app.prepare(ctx_id=-1, det_thresh=lowest, det_size=(detection_size, detection_size))

    def faces(self, picture: Picture) -> Faces:
        """Every face in the image."""
        import cv2

        enlarge = max(1.0, LEAST_SIDE / max(picture.shape[:2]))
        bgr = np.ascontiguousarray(lit(picture)[..., ::-1])
        if enlarge > 1:
            bgr = cv2.resize(bgr, None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_CUBIC)
        border = round(BORDER * max(bgr.shape[:2]))
        bordered = cv2.copyMakeBorder(bgr, border, border, border, border, cv2.BORDER_CONSTANT)
        narrow = min(bgr.shape[:2]) * self._detection_size < max(bgr.shape[:2])  # below a pixel at the detector's size
        views = [(bordered, border)] if narrow else [(bgr, 0), (bordered, border)]
        detections = [(face, view, shift) for view, shift in views for face in self._detected(view)]
        detections.sort(key=lambda item: -float(item[0].det_score))
        boxes = np.array([face.bbox - shift for face, _, shift in detections], np.float32).reshape(-1, 4)
        chosen = distinct(boxes, without_parts(boxes, FILLS * max(bgr.shape[:2])))
        kept = [detections[i] for i in chosen]
        for face, view, _ in kept:  # a face in both views is recognised once
            self._app.models["recognition"].get(view, face)
        landmarks = np.array([face.kps - shift for face, _, shift in kept], np.float32)
        embeddings = np.array([face.normed_embedding for face, _, _ in kept], np.float32)
        return Faces(
            boxes=boxes[chosen] / np.float32(enlarge),
            scores=np.array([face.det_score for face, _, _ in kept], np.float32),
            landmarks=landmarks.reshape(-1, NUM_LANDMARKS, 2) / np.float32(enlarge),
            embeddings=embeddings.reshape(-1, EMBEDDING_WIDTH).round(DECIMALS),
        )

    def _detected(self, bgr: UInt8[np.ndarray, "H W 3"]) -> "list[Face]":
        from insightface.app.common import Face

        boxes, landmarks = self._app.det_model.detect(bgr)
        scores = boxes[:, 4].round(DECIMALS)
        places = zip(boxes[:, :4].round(PIXEL_DECIMALS), landmarks.round(PIXEL_DECIMALS), scores, strict=True)
        minimum = np.float32(self._min_score)
        return [Face(bbox=box, kps=points, det_score=score) for box, points, score in places if score >= minimum]


def lit(picture: Picture) -> Picture:
    """The image itself, or a dark image brightened for the detector."""
    light = float(np.percentile(picture[::4, ::4].max(axis=2), 99)) if picture.size else LEAST_LIGHT
    if light >= LEAST_LIGHT:
        return picture
    return np.minimum(picture * (LEAST_LIGHT / max(light, 1.0)), 255).astype(np.uint8)


def without_parts(boxes: Float[np.ndarray, "F 4"], large: float) -> list[int]:
    """Indices of the boxes that are not parts of a face whose longer side is at least ``large`` pixels."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    wholes = np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).max(axis=1) >= large)

    def is_part(i: int) -> bool:
        return any(
            areas[i] <= PART_AREA * areas[j] and _overlap(boxes[i], boxes[j]) >= PART_INSIDE * areas[i] for j in wholes
        )

    return [i for i in range(len(boxes)) if not is_part(i)]


def distinct(boxes: Float[np.ndarray, "F 4"], candidates: Sequence[int]) -> list[int]:
    """The indices among ``candidates`` whose boxes do not repeat an earlier one."""
    kept: list[int] = []
    for i in candidates:
        if all(_iou(boxes[i], boxes[j]) < SAME_FACE_IOU for j in kept):
            kept.append(i)
    return kept


def _iou(a: Float[np.ndarray, " 4"], b: Float[np.ndarray, " 4"]) -> float:
    overlap = _overlap(a, b)
    return float(overlap / max((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - overlap, 1e-9))


def _overlap(a: Float[np.ndarray, " 4"], b: Float[np.ndarray, " 4"]) -> float:
    """Area in which two boxes overlap."""
    return float(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod())


def _load(folder: Path) -> "FaceAnalysis":
    import onnxruntime
    from insightface.app import FaceAnalysis
    from onnxruntime.capi.onnxruntime_pybind11_state import (
        Fail,
        InvalidArgument,
        InvalidGraph,
        InvalidProtobuf,
        NoSuchFile,
    )

    if not list(folder.glob("*.onnx")):
        raise FileNotFoundError(f"no *.onnx in the face pack {folder}")
    if folder.parent.name != "models":
        raise ValueError(
            f"face pack {folder} should lie in a folder called models, as InsightFace lays it out (ROOT/models/NAME)"
        )
    # InsightFace calls a deprecated function of scikit-image.
    warnings.filterwarnings("ignore", message="`estimate` is deprecated", category=FutureWarning)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    try:
        app = FaceAnalysis(
            name=folder.name,
            root=str(folder.parent.parent),
            allowed_modules=["detection", "recognition"],
            providers=onnxruntime.get_available_providers(),
            sess_options=options,
        )
    except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile, AssertionError) as error:
        fault = str(error).strip() or "no detector in the pack"
        raise ValueError(f"{_broken_file(folder)} is no ONNX model that InsightFace knows: {fault}") from error
    if "recognition" not in app.models:
        raise ValueError(f"face pack {folder} has no recogniser")
    return app


def _broken_file(folder: Path) -> Path:
    """The first file of a pack that is not an ONNX model, or the pack itself."""
    import onnx
    from google.protobuf.message import DecodeError

    for file in sorted(folder.glob("*.onnx")):
        try:
            onnx.checker.check_model(onnx.load(file))
        except (DecodeError, onnx.checker.ValidationError):
            return file
    return folder
