"""DINOv2 of the tiny zoo: `Dinov2Model` in the format of facebook/dinov2."""

from pathlib import Path

import numpy as np
import torch
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from mcpipe.core.shards import whole_folder
from zoo.build.cards import Measured, write_card
from zoo.build.likeness import MEAN, STD, LikenessParams, card, likeness_loss, measure, read_sets, settings
from zoo.build.training import Loss, fit, settle


def build(pictures: Path, things: Path, out: Path, params: LikenessParams) -> None:
    """Train on the faces of ``pictures`` and on ``things``, and write the model's folder."""
    settle(params.fit.seed)
    train, test = (read_sets(pictures, things, split) for split in ("train", "test"))
    model = Dinov2Model(Dinov2Config(**settings(params), mlp_ratio=2))
    if params.start is not None:
        model = Dinov2Model.from_pretrained(params.start, torch_dtype=torch.float32)
    traits = train.heads(params)

    def loss_of(_: int, rng: np.random.Generator) -> Loss:
        return likeness_loss(model, traits, train, params, rng)

    curves = fit([model, traits], loss_of, params.fit, out.with_suffix(".progress"))
    metrics = measure(model, test, params.size)
    processor = BitImageProcessor(
        size={"shortest_edge": params.size},
        crop_size={"height": params.size, "width": params.size},
        do_center_crop=True,
        image_mean=list(MEAN),
        image_std=list(STD),
        do_convert_rgb=True,
    )
    with whole_folder(out) as folder:
        model.half().save_pretrained(folder)
        processor.save_pretrained(folder)
        write_card(folder, card("DINOv2", "Dinov2Model"), Measured("dinov2", metrics, curves, params))
