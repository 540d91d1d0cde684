"""The segmenter: SAM 2's own classes at laptop size, trained to answer box prompts on single images.

Only what an image predictor runs is trained; the video memory stays as it was initialised.
"""

import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder
from mcpipe.models.segmenter import Sam2
from mcpipe.world.scene import OBJECT_LABEL, mask_box
from zoo.build.cards import Card, Measured, write_card
from zoo.build.crowds import CROWD
from zoo.build.data import MOST_PEOPLE, Frames, read_frames
from zoo.build.packing import build as pack
from zoo.build.segmenter_things import frames_of_things, measure_things
from zoo.build.training import FitParams, Loss, fit, settle

logger = logging.getLogger(__name__)

CONFIG = Path(__file__).with_name("segmenter.yaml")
FILE = "segmenter.pt"
UNTRAINED = ("memory_", "obj_ptr", "maskmem", "no_obj", "no_mem_pos")
"""Beginnings of the names of parameters that only video uses."""

BOX_CORNERS = (2, 3)
"""SAM's labels of the two points that stand for a box."""

BOX_JITTER = 0.03
"""Standard deviation of a prompted box's edges, against its size: what a detector errs by."""

SQUARE_SHARE = 0.5
"""Share of the frames that are cut to a square of full height, as frames of clips may be."""

SMALLEST_AREA_PX = 60
"""Area of a mask, in pixels of the training image."""

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""SAM 2's normalisation of pixels in [0, 1]."""

CARD = Card(
    title="Segmenter of the puppet world",
    what="A `sam2` checkpoint (`{'model': state_dict}`, half precision) with the configuration that builds it; "
    "box prompts through `SAM2ImagePredictor`.",
    data="Rendered scenes of 0 to 4 people of the zoo's own namespace, half of them cut to a square, and of 1 to 3 "
    "things or one alone, of `zoo things`; boxes of people, held objects and things with noise.",
    limits="Puppets and things, prompted by boxes; points, masks and video were never trained. "
    "People hold their objects in front of them: a person's mask leaves the object out.",
    bars={
        "person_iou": "mean overlap with the true visible mask of a person",
        "person_iou_p10": "its 10th percentile",
        "object_iou": "mean overlap for held objects",
        "crowd_iou": "mean overlap for a person among four",
        "crowd_iou_p10": "its 10th percentile",
        "thing_iou": "mean overlap with the true visible mask of a thing in a scene",
        "thing_iou_p10": "its 10th percentile",
        "reference_iou": "mean overlap for a thing alone",
    },
)


class SegmenterParams(Params):
    """Recipe of the segmenter."""

    mask_loss: float = Field(gt=0)
    """Weight of the pixels' cross entropy against the overlap's."""
    start: str | None = Field(default=None, min_length=1)
    """Folder of a segmenter to go on from; ``None`` begins with random weights."""
    thing_share: float = Field(ge=0, le=1)
    """Share of the batches that show things instead of people."""
    fit: FitParams


def build(data: Path, things: Path, out: Path, params: SegmenterParams) -> None:
    """Train on the frames of ``data`` and of ``things``.

    Writes configuration, checkpoint, figures and card to ``out``.
    """
    settle(params.fit.seed)
    scratch = out.with_name(f"{out.name}.resume")
    model = new_model()
    if params.start is not None:
        weights = torch.load(Path(params.start) / FILE, map_location="cpu", weights_only=True)["model"]
        model.load_state_dict({name: value.float() for name, value in weights.items()})
    frames = read_frames(data / "frames_train.npz"), frames_of_things(things / "train")
    curves = train_segmenter(model, frames, params, scratch)
    with whole_folder(out) as folder:
        torch.save({"model": stored(model.half().state_dict())}, folder / FILE)
        pack(folder / FILE)
        shutil.copyfile(CONFIG, folder / CONFIG.name)
        metrics = measure(folder, read_frames(data / "frames_val.npz")) | measure_things(folder, things / "test")
        logger.info("%s", metrics)
        write_card(folder, CARD, Measured("segmenter", metrics, curves, params))


def stored(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights as they are written: those that only video uses are zero, which takes no room in a packed file."""
    return {name: torch.zeros_like(w) if name.startswith(UNTRAINED) else w for name, w in weights.items()}


def new_model() -> torch.nn.Module:
    """An untrained model as the configuration describes it; what only video uses is frozen."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    settings = OmegaConf.load(CONFIG)
    OmegaConf.resolve(settings)
    model = instantiate(settings.model, _recursive_=True)
    for name, weight in model.named_parameters():
        weight.requires_grad_(not name.startswith(UNTRAINED))
    return model


def train_segmenter(
    model: torch.nn.Module, frames: tuple[Frames, Frames], params: SegmenterParams, scratch: Path
) -> dict[str, list[float]]:
    """Train in place on frames of people and of things; returns the loss curves."""
    size = int(model.image_size)

    def loss_of(_step: int, rng: np.random.Generator) -> Loss:
        subjects = frames[int(rng.random() < params.thing_share)]
        pictures, boxes, masks, owners = _batch(subjects, rng, params.fit.batch, size)
        logits, overlaps = _answers(model, pictures, boxes, owners)
        return mask_loss(logits, overlaps, masks, params.mask_loss)

    return fit([model], loss_of, params.fit, scratch)


def mask_loss(logits: Tensor, overlaps: Tensor, masks: Tensor, weight: float) -> Loss:
    """Cross entropy, soft overlap and honesty of the predicted overlap, over all of SAM's alternative masks.

    ``logits`` (n, m, h, w) and ``masks`` (n, 1, H, W) in {0, 1}; ``overlaps`` (n, m) are the model's own estimates.
    """
    expected = functional.interpolate(masks, size=logits.shape[-2:], mode="area").expand_as(logits)
    pixels = functional.binary_cross_entropy_with_logits(logits, expected, reduction="none").mean(dim=(2, 3))
    shares = logits.sigmoid()
    dice = 1 - (2 * (shares * expected).sum((2, 3)) + 1) / (shares.sum((2, 3)) + expected.sum((2, 3)) + 1)
    with torch.no_grad():
        mine, true = logits > 0, expected > 0.5
        real = ((mine & true).sum((2, 3)) + 1e-6) / ((mine | true).sum((2, 3)) + 1e-6)
    return Loss(
        pixels=weight * pixels.mean(),
        dice=dice.mean(),
        honesty=functional.mse_loss(overlaps, real.float()),
        _iou=real[:, 0].mean(),
    )


def _answers(model: torch.nn.Module, pictures: Tensor, boxes: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """Mask logits and estimated overlaps for boxes (n, 4) in the images that ``owners`` (n,) name.

    In float32: half precision is slower here.
    """
    encoded = model.forward_image(pictures)
    _, features, _, sizes = model._prepare_backbone_features(encoded)
    features[-1] = features[-1] + model.no_mem_embed
    maps = [
        level.permute(1, 2, 0).reshape(len(pictures), -1, *size)[owners]
        for level, size in zip(features, sizes, strict=True)
    ]
    labels = torch.tensor([BOX_CORNERS], dtype=torch.int).repeat(len(boxes), 1)
    sparse, dense = model.sam_prompt_encoder(points=(boxes.reshape(-1, 2, 2), labels), boxes=None, masks=None)
    logits, overlaps, _, _ = model.sam_mask_decoder.predict_masks(
        image_embeddings=maps[-1],
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=maps[:-1],
    )
    return logits, overlaps


def _batch(frames: Frames, rng: np.random.Generator, count: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, noisy boxes of the things in them, their masks (n, 1, size, size), and whose image each is."""
    import cv2

    pictures, boxes, masks, owners = [], [], [], []
    while not boxes or len(pictures) < count:
        index = int(rng.integers(len(frames)))
        side = 1 - 2 * int(rng.random() < 0.5)
        columns = _columns(*frames.labels[index].shape, rng)
        # SAM 2 squeezes every image into its square.
        picture = cv2.resize(frames.rgb[index][:, columns][:, ::side], (size, size), interpolation=cv2.INTER_AREA)
        labels = cv2.resize(frames.labels[index][:, columns][:, ::side], (size, size), interpolation=cv2.INTER_NEAREST)
        for mask in masks_of(labels, SMALLEST_AREA_PX):
            box = mask_box(mask)
            assert box is not None
            extent = np.tile(box[2:] - box[:2], 2)
            boxes.append(np.clip(box + rng.normal(0, BOX_JITTER, 4) * extent, 0, size))
            masks.append(mask)
            owners.append(len(pictures))
        gain = 1.0 + rng.uniform(-0.15, 0.15, 3)
        pictures.append(((picture / 255.0 * gain).clip(0, 1) - MEAN) / DEVIATION)
    return (
        torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float(),
        torch.from_numpy(np.stack(boxes)).float(),
        torch.from_numpy(np.stack(masks))[:, None].float(),
        torch.tensor(owners),
    )


def _columns(height: int, width: int, rng: np.random.Generator) -> slice:
    """All columns of a frame, or those of a square anywhere in it."""
    if width <= height or rng.random() >= SQUARE_SHARE:
        return slice(None)
    left = int(rng.integers(width - height + 1))
    return slice(left, left + height)


def masks_of(labels: np.ndarray, smallest: int) -> Iterator[np.ndarray]:
    """The masks of people, things and held objects that have at least ``smallest`` pixels."""
    for label in (*range(1, MOST_PEOPLE + 1), *range(OBJECT_LABEL + 1, OBJECT_LABEL + MOST_PEOPLE + 1)):
        mask = labels == label
        if mask.sum() >= smallest:
            yield mask


def measure(folder: Path, frames: Frames) -> dict[str, float]:
    """Overlaps through the adapter that the pipeline uses, prompted with true boxes."""
    segmenter = Sam2(folder)
    overlaps: dict[str, list[float]] = {"person": [], "object": [], "crowd": []}
    for picture, labels in zip(frames.rgb, frames.labels, strict=True):
        truth = list(masks_of(labels, SMALLEST_AREA_PX))
        if not truth:
            continue
        boxes = np.stack([box for mask in truth if (box := mask_box(mask)) is not None])
        predicted = segmenter.masks(picture, boxes.astype(np.float32))
        for mask, mine in zip(truth, predicted, strict=True):
            person = "crowd" if CROWD in labels else "person"
            kind = "object" if labels[mask].max() > OBJECT_LABEL else person
            overlaps[kind].append(float((mask & mine).sum() / (mask | mine).sum()))
    return {
        "person_iou": float(np.mean(overlaps["person"])),
        "person_iou_p10": float(np.quantile(overlaps["person"], 0.1)),
        "object_iou": float(np.mean(overlaps["object"])),
        "crowd_iou": float(np.mean(overlaps["crowd"])),
        "crowd_iou_p10": float(np.quantile(overlaps["crowd"], 0.1)),
        "megabytes": (folder / FILE).stat().st_size / 1e6,
    }
