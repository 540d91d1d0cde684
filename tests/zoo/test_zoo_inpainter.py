"""The inpainter's start, its masks and what it is shown."""

import copy

import numpy as np
import pytest
import torch
from flux_fixtures import TEXTS

from mcpipe.flux.inpainting import InpaintParams
from mcpipe.world.identities import world_rng
from zoo.build.inpainter import SIZE, Encoded, InpainterParams, drawn_mask, encode, example, flow_loss, widened
from zoo.build.pictures import Look, read_pictures, write_pictures
from zoo.build.training import FitParams

FIT = FitParams(seed=0, steps=2, batch=2, learning_rate=1e-3, warmup_steps=1, weight_decay=0.0, ema_decay=0.0)
PARAMS = InpainterParams(
    fit=FIT, num_scenes=2, num_masks=2, num_measured=2, rank=2, first_rank=8, time_shift=2.0,
    sample=InpaintParams(num_steps=1, guidance=1.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")

    def stream(*numbers):
        return world_rng("zoo", *numbers)

    write_pictures(folder, stream, "train", (4, 2, 2), Look(close_share=1.0, scene_captions=2))
    return read_pictures(folder)


def test_masks_are_never_empty_and_cover_faces_often(pictures):
    rng = np.random.default_rng(0)
    masks = [drawn_mask(pictures, row % 4, rng) for row in range(40)]
    assert all(mask.shape == (SIZE, SIZE) and mask.any() for mask in masks)
    assert np.mean([mask.mean() for mask in masks]) < 0.5
    captions = {example(pictures, 0, rng)[2] for _ in range(30)}
    scene = pictures.scenes[0]
    assert captions <= {scene["caption"], scene["mirrored_caption"], *scene["settings"], *scene["mirrored_settings"]}
    assert len(captions) > 2


def test_it_begins_as_the_generator_and_learns_to_see_the_mask(generator):
    transformer = widened(copy.deepcopy(generator.transformer), PARAMS)
    random = torch.Generator().manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    masks = np.zeros((2, 32, 32), bool)
    masks[0, :16] = masks[1, 8:24, 8:24] = True
    encoded = Encoded(*encode(generator, images, masks, TEXTS[:2]))
    assert encoded.beside.shape[-1] == transformer.config.in_channels - encoded.clean.shape[-1]
    assert encoded.inside.sum(-1).tolist() == [8.0, 4.0]
    inputs = {
        "encoder_hidden_states": encoded.text.float(), "pooled_projections": encoded.pooled.float(),
        "timestep": torch.full((2,), 0.5), "guidance": torch.ones(2), "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(encoded.text.shape[1], 3), "return_dict": False,
    }  # fmt: skip
    noisy = torch.randn(encoded.clean.shape, generator=random)
    with torch.no_grad():
        expected = generator.transformer(hidden_states=noisy, **inputs)[0]
        own = transformer(hidden_states=torch.cat([noisy, encoded.beside.float()], -1), **inputs)[0]
    torch.testing.assert_close(own, expected)
    loss = flow_loss(transformer, encoded, np.array([0, 1]), PARAMS)
    loss.total().backward()
    first = transformer.x_embedder.lora_B["default"].weight
    assert first.grad.abs().max() > 0
    with torch.no_grad():
        first -= first.grad.sign() * 1e-2
        after, without = (
            transformer(hidden_states=torch.cat([noisy, beside.float()], -1), **inputs)[0]
            for beside in (encoded.beside, torch.zeros_like(encoded.beside))
        )
    assert not torch.allclose(after, own)
    assert not torch.allclose(after, without)
    frozen = [name for name, weight in transformer.named_parameters() if not weight.requires_grad]
    assert frozen
    assert not [name for name in frozen if "lora" in name]
