"""The segmenter of things: the people's, trained further on scenes and references of things.

It is a checkpoint of its own, so that the curation of people stays as it is. Published weights of SAM 2 do both.
"""

import logging
import shutil
from pathlib import Path

import cv2
import numpy as np
import torch

from mcpipe.core.shards import whole_folder
from mcpipe.models.segmenter import Sam2
from mcpipe.world.scene import mask_box
from zoo.build.cards import Card, Measured, write_card
from zoo.build.data import Frames
from zoo.build.packing import build as pack
from zoo.build.segmenter import (
    CONFIG,
    FILE,
    SMALLEST_AREA_PX,
    SegmenterParams,
    new_model,
    stored,
    things,
    train_segmenter,
)
from zoo.build.training import settle

logger = logging.getLogger(__name__)

REFERENCE_SHARE = 2
"""A training image is a reference, alone in its place, once in so many."""
OPAQUE = 128
"""Value of a reference's fourth channel from which a pixel is the thing's."""
CARD = Card(
    title="Segmenter of the world's things",
    what="A `sam2` checkpoint (`{'model': state_dict}`, half precision) with the configuration that builds it; "
    "box prompts through `SAM2ImagePredictor`.",
    data="Rendered scenes of one to three things of the zoo's own namespace, and single ones; boxes with noise.",
    limits="Things, prompted by boxes; it began as the segmenter of people and has forgotten some of them.",
    bars={
        "scene_iou": "mean overlap with the true visible mask of a thing in a scene",
        "scene_iou_p10": "its 10th percentile",
        "reference_iou": "mean overlap for a thing alone",
    },
)


def build(segmenter: Path, pictures: Path, out: Path, params: SegmenterParams) -> None:
    """Train the checkpoint of ``segmenter`` on pictures of things; write it with figures and card to ``out``."""
    settle(params.fit.seed)
    model = new_model()
    weights = torch.load(segmenter / FILE, map_location="cpu", weights_only=True)["model"]
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    scratch = out.with_name(f"{out.name}.resume")
    curves = train_segmenter(model, frames_of(pictures / "train"), params, scratch)
    with whole_folder(out) as folder:
        torch.save({"model": stored(model.half().state_dict())}, folder / FILE)
        pack(folder / FILE)
        shutil.copyfile(CONFIG, folder / CONFIG.name)
        metrics = measure(folder, pictures / "test")
        logger.info("%s", metrics)
        write_card(folder, CARD, Measured("segmenter_things", metrics, curves, params))


def frames_of(folder: Path) -> Frames:
    """Scenes, and references among them, in the form of frames of people; what people alone have is empty."""
    scenes, labels, references = (np.load(folder / f"{name}.npy") for name in ("frames", "labels", "references"))
    side, chosen = scenes.shape[1], references[:: max(1, REFERENCE_SHARE * len(references) // len(scenes))]
    alone = np.stack([cv2.resize(each, (side, side), interpolation=cv2.INTER_LINEAR) for each in chosen])
    grown = labels.repeat(side // labels.shape[1], axis=1).repeat(side // labels.shape[2], axis=2)
    rgb = np.concatenate([scenes, alone[..., :3]])
    seats = np.concatenate([grown, (alone[..., 3] >= OPAQUE).astype(np.uint8)])
    nothing = np.zeros((0,))
    return Frames(rgb, seats, nothing, nothing, nothing, nothing, nothing)


def measure(folder: Path, test: Path) -> dict[str, float]:
    """Overlaps through the adapter that the pipeline uses, prompted with true boxes; labels show every second pixel."""
    segmenter = Sam2(folder)
    scenes, labels, references = (np.load(test / f"{name}.npy") for name in ("frames", "labels", "references"))
    in_scenes, alone = [], []
    for picture, seats in zip(scenes, labels, strict=True):
        step = picture.shape[0] // seats.shape[0]
        in_scenes += overlaps(segmenter, picture, list(things(seats, SMALLEST_AREA_PX // step**2)), step)
    for reference in references[: len(scenes)]:
        alone += overlaps(segmenter, np.ascontiguousarray(reference[..., :3]), [reference[..., 3] >= OPAQUE], 1)
    return {
        "scene_iou": float(np.mean(in_scenes)),
        "scene_iou_p10": float(np.quantile(in_scenes, 0.1)),
        "reference_iou": float(np.mean(alone)),
        "megabytes": (folder / FILE).stat().st_size / 1e6,
    }


def overlaps(segmenter: Sam2, picture: np.ndarray, truth: list[np.ndarray], step: int) -> list[float]:
    """Intersection over union of predicted and true masks, which show every pixel in ``step``."""
    boxes = [box for mask in truth if (box := mask_box(mask)) is not None]
    if not boxes:
        return []
    predicted = segmenter.masks(picture, step * np.stack(boxes).astype(np.float32))[:, ::step, ::step]
    return [float((mask & mine).sum() / (mask | mine).sum()) for mask, mine in zip(truth, predicted, strict=True)]
