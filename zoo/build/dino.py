"""DINO of the tiny zoo: `ViTModel` in the format of facebook/dino-vits16."""

from pathlib import Path

import numpy as np
from transformers import ViTConfig, ViTImageProcessor
from transformers import ViTModel as Vit

from mcpipe.core.shards import whole_folder
from zoo.build.cards import Measured, write_card
from zoo.build.likeness import MEAN, STD, LikenessParams, card, likeness_loss, make_traits, measure, settings
from zoo.build.pictures import read_pictures
from zoo.build.training import Loss, fit, settle


def build(pictures: Path, out: Path, params: LikenessParams) -> None:
    """Train on the faces of ``pictures`` and write the model's folder."""
    settle(params.fit.seed)
    train, test = read_pictures(pictures / "train"), read_pictures(pictures / "test")
    config = ViTConfig(**settings(params), intermediate_size=2 * params.width)
    model = Vit(config, add_pooling_layer=False)
    traits = make_traits(train, params)

    def loss_of(_: int, rng: np.random.Generator) -> Loss:
        return likeness_loss(model, traits, train, params, rng)

    curves = fit([model, traits], loss_of, params.fit, out.with_suffix(".progress"))
    metrics = measure(model, test, params.size)
    size = {"height": params.size, "width": params.size}
    with whole_folder(out) as folder:
        model.half().save_pretrained(folder)
        ViTImageProcessor(size=size, image_mean=list(MEAN), image_std=list(STD)).save_pretrained(folder)
        write_card(folder, card("DINO", "ViTModel"), Measured("dino", metrics, curves, params))
