"""Detection of people and joints by an ultralytics pose checkpoint, such as YOLO11-pose."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jaxtyping import Float

from mcpipe.models.checkpoints import device_name, loaded
from mcpipe.models.protocols import People, Picture, PoseDetector

if TYPE_CHECKING:
    from ultralytics import YOLO
    from ultralytics.engine.results import Results

NUM_JOINTS = 17


class ClipPoseDetector(PoseDetector, Protocol):
    """A pose detector that also processes several frames of a clip in a batch."""

    def people_of(self, pictures: Sequence[Picture]) -> list[People]:
        """The people in each of several images of one size, processed in one batch."""
        ...


class UltralyticsPose:
    """A pose detector from a ``.pt`` checkpoint of ultralytics with the 17 COCO joints."""

    def __init__(self, checkpoint: Path, min_score: float) -> None:
        """Load the checkpoint.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is not a pose checkpoint with 17 joints.

        """
        if not checkpoint.is_file():
            raise FileNotFoundError(f"no pose checkpoint {checkpoint}")
        if checkpoint.suffix != ".pt":
            raise ValueError(f"pose checkpoint {checkpoint} should be a .pt file of ultralytics")
        self._model = loaded(lambda: _load(checkpoint), checkpoint, "ultralytics checkpoint")
        if (num_joints := _num_joints(self._model)) != NUM_JOINTS:
            raise ValueError(
                f"{checkpoint} finds {num_joints} joints, not the {NUM_JOINTS} of COCO; use a pose checkpoint"
            )
        self._min_score = min_score

    def people(self, picture: Picture) -> People:
        """The people in an image whose score reaches the minimum."""
        return self.people_of([picture])[0]

    def people_of(self, pictures: Sequence[Picture]) -> list[People]:
        """The people in each of several images of one size, processed in one batch."""
        bgr = [np.ascontiguousarray(picture[..., ::-1]) for picture in pictures]
        size = self._model.model.args.get("imgsz", 640)
        results = self._model.predict(bgr, conf=self._min_score, imgsz=size, verbose=False, device=device_name())
        return [_people(result) for result in results]


def _people(result: "Results") -> People:
    order = np.argsort(-result.boxes.conf.cpu().numpy(), kind="stable")
    return People(
        boxes=_numbers(result.boxes.xyxy.cpu().numpy())[order],
        scores=_numbers(result.boxes.conf.cpu().numpy())[order],
        keypoints=_numbers(result.keypoints.data.cpu().numpy()).reshape(-1, NUM_JOINTS, 3)[order],
    )


def _numbers(values: np.ndarray) -> Float[np.ndarray, "..."]:
    return values.astype(np.float32)


def _load(checkpoint: Path) -> "YOLO":
    from ultralytics import YOLO

    return YOLO(str(checkpoint), task="pose", verbose=False)


def _num_joints(model: "YOLO") -> int:
    """Number of joints that a checkpoint detects; 0 without joints."""
    shape = model.model.yaml.get("kpt_shape")
    return int(shape[0]) if shape else 0
