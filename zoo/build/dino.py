"""DINO of the tiny zoo: `ViTModel` in the format of facebook/dino-vits16."""

from pathlib import Path

import numpy as np
import torch
from transformers import ViTConfig, ViTImageProcessor
from transformers import ViTModel as Vit

from mcpipe.core.shards import whole_folder
from zoo.build.cards import Measured, write_card
from zoo.build.likeness import MEAN, STD, LikenessParams, card, likeness_loss, measure, read_sets, settings
from zoo.build.training import Loss, fit, settle


def build(pictures: Path, things: Path, out: Path, params: LikenessParams) -> None:
    """Train on the faces of ``pictures`` and on ``things``, and write the model's folder."""
    settle(params.fit.seed)
    train, test = (read_sets(pictures, things, split) for split in ("train", "test"))
    config = ViTConfig(**settings(params), intermediate_size=2 * params.width)
    model = Vit(config, add_pooling_layer=False)
    if params.start is not None:
        model = Vit.from_pretrained(params.start, add_pooling_layer=False, torch_dtype=torch.float32)
    traits = train.heads(params)

    def loss_of(_: int, rng: np.random.Generator) -> Loss:
        return likeness_loss(model, traits, train, params, rng)

    curves = fit([model, traits], loss_of, params.fit, out.with_suffix(".progress"))
    metrics = measure(model, test, params.size)
    size = {"height": params.size, "width": params.size}
    with whole_folder(out) as folder:
        model.half().save_pretrained(folder)
        ViTImageProcessor(size=size, image_mean=list(MEAN), image_std=list(STD)).save_pretrained(folder)
        write_card(folder, card("DINO", "ViTModel"), Measured("dino", metrics, curves, params))
