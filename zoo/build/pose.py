"""The pose detector: a small ultralytics model with COCO's 17 keypoints, trained by ultralytics' own trainer."""

import csv
import logging
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from pydantic import Field
from ultralytics import YOLO, settings
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn.tasks import torch_safe_load

from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder
from zoo.build.cards import Card, Measured, write_card
from zoo.build.data import Frames, read_frames

logger = logging.getLogger(__name__)

FILE = "pose.pt"
SERVICES = ("clearml", "comet", "dvc", "mlflow", "raytune", "sync", "tensorboard", "wandb")
"""Settings of ultralytics that hand a training run to another package or service, if that is installed."""
MIRRORED = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
"""COCO's keypoints as a mirror shows them."""

JPEG_QUALITY_RANGE = (55, 96)
SETTINGS, KEPT = "settings.json", "kept.pt"
"""In the folder of an unfinished training: whose it is, and its last whole epoch."""

SURE = 0.5
"""Certainty from which a detection is counted in `exact_count`."""

LAYERS = {
    "backbone": [
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 1, "Conv", [256, 3, 2]],
        [-1, 1, "C3k2", [256, False, 0.5]],
        [-1, 1, "Conv", [512, 3, 2]],
        [-1, 1, "C3k2", [512, False, 0.5]],
        [-1, 1, "Conv", [512, 3, 2]],
        [-1, 1, "C3k2", [512, False, 0.5]],
        [-1, 1, "SPPF", [512, 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 5], 1, "Concat", [1]],
        [-1, 1, "C3k2", [512, False]],
        [-1, 1, "Conv", [512, 3, 2]],
        [[-1, 8], 1, "Concat", [1]],
        [-1, 1, "C3k2", [512, False]],
        [[11, 14], 1, "Pose", ["nc", "kpt_shape"]],
    ],
}
"""YOLO11-pose without its finest scale: people in a two-shot are large."""

CARD = Card(
    title="Pose detector of the puppet world",
    what="An ultralytics pose checkpoint (`YOLO('pose.pt')`), 17 COCO keypoints, weights in half precision.",
    data="Rendered scenes of 0 to 3 people of the zoo's own namespace, a tenth of them with somebody looking away, "
    "a third softened to the resolution of the tiny generator, stored as JPEG of varying quality.",
    limits="Knows half-body puppets at the scale of the world's clips and square crops of them, nothing else. "
    "Hips are guesses where the picture ends above them; knees and ankles are never seen.",
    bars={
        "box_map50": "mean average precision of boxes at IoU 0.5",
        "pose_map50": "the same of keypoints, at object keypoint similarity 0.5",
        "exact_count": f"share of pictures with as many sure ({SURE}) detections as people",
    },
)


class PoseParams(Params):
    """Recipe of the pose detector."""

    seed: int
    """Seed of weights and batches."""
    width: float = Field(gt=0, le=1)
    """Channels against YOLO11-l's."""
    depth: float = Field(gt=0, le=1)
    """Repeats against YOLO11-l's."""
    picture_size: int = Field(ge=64, multiple_of=32)
    """Longer side in pixels at which images are seen."""
    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)
    learning_rate: float = Field(gt=0)


def build(data: Path, out: Path, params: PoseParams) -> None:
    """Train on the frames of ``data``; write the checkpoint with its figures and card to ``out``."""
    torch.set_num_threads(1)
    # Writes a file in the library's own folder for settings, see mcpipe.core.offline.
    settings.update({name: False for name in SERVICES if name in settings})
    scratch = out.with_name(f"{out.name}.resume")
    with whole_folder(out) as folder, tempfile.TemporaryDirectory() as work:
        dataset = write_dataset(data, Path(work))
        trained = train(dataset, scratch, params)
        strip(trained, folder / FILE, params.picture_size)
        metrics = _measure(folder / FILE, dataset, data, params)
        logger.info("%s", metrics)
        write_card(folder, CARD, Measured("pose", metrics, read_curves(scratch), params))
    shutil.rmtree(scratch)


def write_dataset(data: Path, work: Path) -> Path:
    """Write frames and labels in ultralytics' layout; returns the file that describes them."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        frames = read_frames(data / f"frames_{split}.npz")
        for kind in ("images", "labels"):
            (work / kind / split).mkdir(parents=True)
        for index in range(len(frames)):
            quality = int(rng.integers(*JPEG_QUALITY_RANGE))
            picture = str(work / "images" / split / f"{index:05d}.jpg")
            cv2.imwrite(picture, frames.rgb[index][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
            (work / "labels" / split / f"{index:05d}.txt").write_text(
                "\n".join(_label_lines(frames, index)), encoding="utf-8"
            )
    dataset = work / "world.yaml"
    described = {
        "path": str(work), "train": "images/train", "val": "images/val", "names": {0: "person"},
        "kpt_shape": [17, 3], "flip_idx": MIRRORED,
    }  # fmt: skip
    dataset.write_text(yaml.safe_dump(described), encoding="utf-8")
    return dataset


def _label_lines(frames: Frames, index: int) -> list[str]:
    """One line per person: class, middle and size of the box, keypoints; all against the image's size."""
    height, width = frames.rgb.shape[1:3]
    size = np.array([width, height])
    lines = []
    for box, keypoints in zip(frames.boxes[index], frames.keypoints[index], strict=True):
        if np.isnan(box[0]):
            continue
        middle, extent = (box[:2] + box[2:]) / 2 / size, (box[2:] - box[:2]) / size
        points = np.where(keypoints[:, 2:] > 0, np.clip(keypoints[:, :2] / size, 0, 1), 0)
        numbers = np.concatenate([middle, extent, np.column_stack([points, keypoints[:, 2]]).ravel()])
        lines.append(" ".join(["0", *(f"{number:.5g}" for number in numbers)]))
    return lines


def train(dataset: Path, scratch: Path, params: PoseParams) -> Path:
    """Train on a dataset; returns ultralytics' last checkpoint.

    Every epoch is kept in ``scratch``; a later call with the same settings goes on from there.
    """
    described, kept = scratch / SETTINGS, scratch / KEPT
    if not described.is_file() or described.read_text(encoding="utf-8") != params.model_dump_json():
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        described.write_text(params.model_dump_json(), encoding="utf-8")
    begun = kept.is_file()
    if begun and torch_safe_load(kept, safe_only=True)[0]["epoch"] + 1 == params.epochs:
        return kept
    model = YOLO(str(kept if begun else _architecture(scratch, params)), task="pose")
    model.add_callback("on_model_save", _keep)
    model.add_callback("on_train_epoch_end", _tell)
    how = {"resume": str(kept)} if begun else _recipe(params)
    model.train(
        data=str(dataset), save_dir=str(scratch), device="cpu", workers=0, cache="ram", plots=False, val=False, **how
    )
    return kept


def _architecture(scratch: Path, params: PoseParams) -> Path:
    config = scratch / "pose.yaml"
    scales = {"t": [params.depth, params.width, 512]}
    config.write_text(
        yaml.safe_dump({"nc": 1, "kpt_shape": [17, 3], "scale": "t", "scales": scales} | LAYERS), encoding="utf-8"
    )
    return config


def _recipe(params: PoseParams) -> dict[str, object]:
    """Arguments of ultralytics' trainer, which it also stores for a resumed run."""
    return {
        "epochs": params.epochs, "imgsz": params.picture_size, "batch": params.batch, "seed": params.seed,
        "optimizer": "AdamW", "lr0": params.learning_rate, "lrf": 0.02, "cos_lr": True, "warmup_epochs": 0.5,
        "nbs": params.batch, "mosaic": 0.0, "erasing": 0.0, "degrees": 0.0, "translate": 0.12, "scale": 0.4,
        "fliplr": 0.5, "hsv_h": 0.01, "hsv_s": 0.3, "hsv_v": 0.3, "amp": False, "verbose": False, "pretrained": False,
        "exist_ok": True,
    }  # fmt: skip


def _keep(trainer: BaseTrainer) -> None:
    """Put the epoch's checkpoint where no interruption can damage it."""
    unfinished = trainer.save_dir / f"unfinished-{KEPT}"
    shutil.copyfile(trainer.last, unfinished)
    unfinished.replace(trainer.save_dir / KEPT)


def _tell(trainer: BaseTrainer) -> None:
    losses = ", ".join(f"{name} {value:.4f}" for name, value in trainer.label_loss_items(trainer.tloss).items())
    logger.info("epoch %d of %d: %s", trainer.epoch + 1, trainer.epochs, losses)


def read_curves(scratch: Path) -> dict[str, list[float]]:
    """The losses by epoch, from ultralytics' own table; an epoch that was interrupted and repeated counts once."""
    with (scratch / "results.csv").open(encoding="utf-8") as table:
        rows = {int(row["epoch"]): row for row in csv.DictReader(table)}
    losses = [name for name in next(iter(rows.values())) if name.startswith("train/")]
    steps = {"step": [float(epoch) for epoch in sorted(rows)]}
    return steps | {name.removeprefix("train/"): [float(rows[e][name]) for e in sorted(rows)] for name in losses}


def strip(trained: Path, file: Path, picture_size: int) -> None:
    """Write the checkpoint with what inference needs: half-precision weights, the image size, no paths or dates."""
    checkpoint, _ = torch_safe_load(trained, safe_only=True)
    model = checkpoint["ema"].half().requires_grad_(False)
    kept = {"imgsz": picture_size, "task": "pose", "single_cls": False, "data": None, "model": "pose.yaml"}
    model.args = kept
    model.yaml.pop("yaml_file", None)
    model.criterion = None
    torch.save({"model": model, "train_args": kept, "epoch": -1, "version": checkpoint["version"]}, file)


def _measure(file: Path, dataset: Path, data: Path, params: PoseParams) -> dict[str, float]:
    detector = YOLO(str(file))
    scores = detector.val(
        data=str(dataset), imgsz=params.picture_size, batch=params.batch, workers=0, device="cpu", plots=False,
        verbose=False, save_dir=str(dataset.parent / "val"),
    )  # fmt: skip
    frames = read_frames(data / "frames_val.npz")
    right = []
    for index, picture in enumerate(frames.rgb):
        bgr = np.ascontiguousarray(picture[..., ::-1])
        detections = detector.predict(bgr, conf=SURE, imgsz=params.picture_size, verbose=False, device="cpu")[0]
        right.append(len(detections.boxes) == int((~np.isnan(frames.boxes[index, :, 0])).sum()))
    return {
        "box_map50": float(scores.box.map50),
        "box_map50_95": float(scores.box.map),
        "pose_map50": float(scores.pose.map50),
        "pose_map50_95": float(scores.pose.map),
        "exact_count": float(np.mean(right)),
        "megabytes": file.stat().st_size / 1e6,
    }
