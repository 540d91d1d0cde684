"""DINO's and DINOv2's training on people and things: one batch of both, and figures for each."""

from functools import partial

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from mcpipe.world.identities import world_rng
from zoo.build.likeness import LikenessParams, likeness_loss, measure, read_sets, settings
from zoo.build.pictures import Look, write_pictures
from zoo.build.things import write_things
from zoo.build.training import FitParams

FIT = FitParams(seed=0, steps=1, batch=8, learning_rate=1e-3, warmup_steps=1, weight_decay=0.0, ema_decay=0.0)
PARAMS = LikenessParams(fit=FIT, size=28, patch=14, width=32, layers=1, things_share=0.5)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    stream = partial(world_rng, "tests of likeness")
    write_pictures(folder / "pictures" / "train", stream, "train", (4, 4, 2), Look(scene_captions=1))
    write_things(folder / "things" / "train", stream, "train", (6, 4, 2), scene_captions=1)
    return read_sets(folder / "pictures", folder / "things", "train")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Dinov2Model(Dinov2Config(**settings(PARAMS), mlp_ratio=2))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_few_steps_lower_the_loss_of_a_batch_with_and_without_things(sets, model, share):
    params = PARAMS.model_copy(update={"things_share": share})
    heads = sets.heads(params)
    optimizer = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=3e-3)
    losses = []
    for _ in range(12):
        loss = likeness_loss(model, heads, sets, params, np.random.default_rng(0))
        loss.total().backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.total().detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_heads_of_things_learn_only_from_things(sets, model):
    for share, learns in ((0.0, False), (0.5, True)):
        params = PARAMS.model_copy(update={"things_share": share})
        heads = sets.heads(params)
        likeness_loss(model, heads, sets, params, np.random.default_rng(0)).total().backward()
        assert (heads.thing_vector.weight.grad is not None) == learns


def test_people_and_things_are_measured_apart(sets, model):
    figures = measure(model.eval(), sets, PARAMS.size)
    for name in ("nearest_is_same", "coarse_nearest_is_same", "cosine_same"):
        assert -1 <= figures[name] <= 1
        assert -1 <= figures[f"things_{name}"] <= 1
