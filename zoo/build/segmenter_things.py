"""Scenes of things for the segmenter, and its overlaps on unseen ones."""

from pathlib import Path

import cv2
import numpy as np

from mcpipe.models.segmenter import Sam2
from mcpipe.world.scene import mask_box
from zoo.build.data import Frames
from zoo.build.things import read_things

SCENES_PER_REFERENCE = 2
"""Scenes for each reference, which shows one thing alone in its place."""

OPAQUE = 128
"""Value of a reference's fourth channel from which a pixel is the thing's."""

SMALLEST_AREA = 15
"""Labelled pixels of a mask that is measured, at least."""


def frames_of_things(folder: Path) -> Frames:
    """Scenes, and references among them, in the form of frames of people; what people alone have is empty."""
    things = read_things(folder)
    side, step = things.frames.shape[1], things.frames.shape[1] // things.labels.shape[1]
    chosen = things.references[:: max(1, SCENES_PER_REFERENCE * len(things.references) // len(things.frames))]
    alone = np.stack([cv2.resize(each, (side, side), interpolation=cv2.INTER_LINEAR) for each in chosen])
    labels = things.labels.repeat(step, axis=1).repeat(step, axis=2)
    nothing = np.zeros((0,))
    return Frames(
        np.concatenate([things.frames, alone[..., :3]]),
        np.concatenate([labels, (alone[..., 3] >= OPAQUE).astype(np.uint8)]),
        *[nothing] * 5,
    )


def measure_things(folder: Path, test: Path) -> dict[str, float]:
    """Overlaps through the adapter that the pipeline uses, prompted with true boxes."""
    segmenter, things = Sam2(folder), read_things(test)
    step = things.frames.shape[1] // things.labels.shape[1]
    in_scenes, alone = [], []
    for picture, labels in zip(things.frames, things.labels, strict=True):
        masks = [labels == label for label in range(1, int(labels.max()) + 1)]
        in_scenes += overlaps(segmenter, picture, [mask for mask in masks if mask.sum() >= SMALLEST_AREA], step)
    for reference in things.references[: len(things.frames)]:
        alone += overlaps(segmenter, np.ascontiguousarray(reference[..., :3]), [reference[..., 3] >= OPAQUE], 1)
    return {
        "thing_iou": float(np.mean(in_scenes)),
        "thing_iou_p10": float(np.quantile(in_scenes, 0.1)),
        "reference_iou": float(np.mean(alone)),
    }


def overlaps(segmenter: Sam2, picture: np.ndarray, truth: list[np.ndarray], step: int) -> list[float]:
    """Intersection over union of predicted and true masks, which show every pixel in ``step``."""
    boxes = [box for mask in truth if (box := mask_box(mask)) is not None]
    if not boxes:
        return []
    predicted = segmenter.masks(np.asarray(picture), step * np.stack(boxes).astype(np.float32))[:, ::step, ::step]
    return [float((mask & mine).sum() / (mask | mine).sum()) for mask, mine in zip(truth, predicted, strict=True)]
