"""Preference training through the loop: losses of every arm, what is trained, what comes out, what is refused."""

import math

import numpy as np
import pytest
import torch
from flux_fixtures import REFERENCE_SIZE
from preference_fixtures import DIP, FOCUS, PREFERENCE, NoisyInpainter, Recogniser
from training_fixtures import ENCODE, Killed, outcome

from focusdpo import encode, masks, train
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.shards import read_shards, write_shards
from mcpipe.flux.adapters import load_adapter, read_spec
from mcpipe.flux.backbone import load_generator
from mcpipe.steps.dip import decided_pair
from mcpipe.steps.focus_masks import MasksParams
from mcpipe.train.preference.data import PairDraws, pair_batch, read_pairs
from mcpipe.train.preference.losses import preference_losses
from mcpipe.train.preference.trainer import preference_network

ARMS = ("sft", "dpo", "patch_dpo", "focus_dpo")


@pytest.fixture(scope="module")
def dip(tmp_path_factory, samples):
    """The output of ``dip``: a pair of every sample for training, of all and of one person."""
    pairs = []
    for sample in read_shards(samples, Sample):
        for person in (0, None) if sample.split == "train" else ():
            key = f"{sample.key}-{'all' if person is None else person}"
            recogniser = Recogniser(lambda picture, sample=sample: faces_in(picture, sample))
            pairs.append(decided_pair(sample, key, person, NoisyInpainter(), recogniser, None, DIP))
    folder = tmp_path_factory.mktemp("dip") / "dip"
    write_shards(sorted(pairs, key=lambda pair: pair.key), folder, 4)
    return folder


def faces_in(picture, sample):
    """Both people in what was not repainted, and in every reference."""
    known = [sample.target, *sample.closeups]
    original = picture.shape[0] == REFERENCE_SIZE or any(np.array_equal(picture, other) for other in known)
    return [[1.0, 0.0]] * 2 if original else [[0.0, 1.0]]


@pytest.fixture(scope="module")
def encoded_pairs(tmp_path_factory, dip, generator_folder):
    folder = tmp_path_factory.mktemp("encoded_pairs") / "encoded"
    encode.run(dip, generator_folder, folder, ENCODE)
    return folder


@pytest.fixture
def trained_from(encoded_pairs, stage_one, generator_folder, tmp_path):
    def run(name, **changes):
        params = PREFERENCE.model_copy(update=changes)
        train.run(encoded_pairs, stage_one, generator_folder, tmp_path / name, params)
        return tmp_path / name

    return run


@pytest.fixture
def network(generator, encoded_pairs, stage_one):
    pairs = read_pairs(encoded_pairs)
    return preference_network(generator, stage_one, pairs, PREFERENCE, 0)[1]


def batch_of(encoded_pairs, num=3):
    draws = PairDraws(0, 1.5, shuffle_references=True)
    return pair_batch(read_pairs(encoded_pairs), draws, range(num), torch.device("cpu"))


def test_pairs_share_noise_and_level_and_masks_follow_their_references(encoded_pairs):
    batch = batch_of(encoded_pairs, 8)
    assert not torch.equal(batch.winner, batch.loser)
    assert torch.equal(batch.prior.any(-1), batch.conditions.present)
    sizes = {tuple(mask.sum(-1).tolist()) for mask in batch.prior if mask[1].any()}
    assert len(sizes) > 1, "both orders of unequal masks are drawn"
    again = batch_of(encoded_pairs, 8)
    assert torch.equal(batch.noise, again.noise)


def test_before_the_first_step_policy_and_reference_are_one(network, encoded_pairs):
    batch = batch_of(encoded_pairs)
    for arm, name in (("dpo", "dpo"), ("focus_dpo", "focus_dpo")):
        losses = preference_losses(network, network, batch, arm, PREFERENCE)
        assert losses.terms[name].item() == pytest.approx(math.log(2), abs=1e-6)
        assert losses.metrics["margin"] == pytest.approx(0, abs=1e-6)


def test_small_steps_lower_the_loss_and_prefer_the_winner(network, encoded_pairs):
    batch = batch_of(encoded_pairs)
    optimizer = torch.optim.Adam([weight for weight in network.parameters() if weight.requires_grad], 2e-3)
    for _ in range(8):
        losses = preference_losses(network, network, batch, "focus_dpo", PREFERENCE)
        losses.terms["focus_dpo"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses.terms["focus_dpo"].item() < 0.6
    assert losses.metrics["accuracy"] == 1
    assert losses.metrics["margin"] > 0


def test_pairs_without_a_mask_are_left_out(network, encoded_pairs):
    batch = batch_of(encoded_pairs)
    blank = type(batch)(**vars(batch) | {"prior": torch.zeros_like(batch.prior)})
    losses = preference_losses(network, network, blank, "focus_dpo", PREFERENCE)
    assert losses.terms["focus_dpo"].item() == 0
    assert losses.metrics["left_out"] == 1
    assert losses.counts["accuracy"] == 0
    losses.terms["focus_dpo"].backward()


def test_the_noise_form_is_the_velocity_form_with_less_weight_near_noise(network, encoded_pairs):
    for weight in network.parameters():
        if weight.requires_grad:
            weight.data.add_(0.05)
    batch = batch_of(encoded_pairs, 1)
    by_form = {
        form: preference_losses(network, network, batch, "dpo", PREFERENCE.model_copy(update={"form": form})).metrics
        for form in ("velocity", "noise")
    }
    factor = float((1 - batch.t[0]) ** 2)
    assert by_form["velocity"]["margin"] != 0
    assert by_form["noise"]["margin"] == pytest.approx(factor * by_form["velocity"]["margin"], rel=1e-3)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_trains_the_added_lora_and_leaves_an_ordinary_adapter(trained_from, stage_one, generator_folder, arm):
    folder = trained_from(f"{arm}-1")
    curves, weights = outcome(folder)
    assert all(len(values) == 3 for name, values in curves.items() if "_t" not in name)
    start = read_spec(stage_one)
    assert read_spec(folder).rank == start.rank + PREFERENCE.rank
    load_adapter(load_generator(generator_folder), folder)
    before = outcome(stage_one)[1]
    moved = 0
    for name, weight in before.items():
        own = weights[name]
        if ".lora_A." in name:
            assert np.array_equal(own[: start.rank], weight)
        else:
            assert np.array_equal(own[:, : start.rank], weight)
            moved += bool(own[:, start.rank :].any())
    assert moved > 0
    expected = {"focus_dpo": {"focus_ratio", "mask_area", "margin", "accuracy"}, "dpo": {"margin", "accuracy"}}
    assert expected.get(arm, set()) <= curves.keys()


def test_arms_differ_and_seeds_differ(trained_from):
    results = [outcome(trained_from(name))[1] for name in ("dpo-0", "focus_dpo-0", "focus_dpo-1")]
    names = [name for name in results[0] if ".lora_B." in name]
    for first, second in ((0, 1), (1, 2)):
        assert any(not np.array_equal(results[first][name], results[second][name]) for name in names)


def test_the_literal_rate_changes_nothing_that_could_be_seen(trained_from):
    weights = outcome(trained_from("focus_dpo-0", preset="paper_literal"))[1]
    added = [weight[:, -PREFERENCE.rank :] for name, weight in weights.items() if ".lora_B." in name]
    assert 0 < max(np.abs(weight).max() for weight in added) < 1e-7


def test_a_training_that_was_killed_ends_as_an_undisturbed_one(trained_from, killed_at, tmp_path):
    whole = outcome(trained_from("focus_dpo-0"))
    (tmp_path / "focus_dpo-0").rename(tmp_path / "whole")
    killed_at(2)
    with pytest.raises(Killed):
        trained_from("focus_dpo-0")
    killed_at(None)
    curves, weights = outcome(trained_from("focus_dpo-0"))
    assert curves == whole[0]
    assert all(np.array_equal(weights[name], weight) for name, weight in whole[1].items())


def test_users_faults_are_one_line(encoded_pairs, stage_one, generator_folder, generator, tmp_path):
    with pytest.raises(ValueError, match="an output should be called ARM-SEED"):
        train.run(encoded_pairs, stage_one, generator_folder, tmp_path / "focus", PREFERENCE)
    spec = read_spec(stage_one).model_copy(update={"image_size": 64})
    other = tmp_path / "other"
    other.mkdir()
    for file in stage_one.glob("*.safetensors"):
        (other / file.name).write_bytes(file.read_bytes())
    (other / "adapter.json").write_text(spec.model_dump_json(), encoding="utf-8")
    with pytest.raises(
        ValueError, match="was trained for images of 64 px and references of 16 px, but the pairs have 32"
    ):
        preference_network(generator, other, read_pairs(encoded_pairs), PREFERENCE, 0)
    write_shards([], tmp_path / "none", 4)
    with pytest.raises(ValueError, match="no pairs in"):
        read_pairs(tmp_path / "none")
    with pytest.raises(ValueError, match="no learning rate 'fast'; there are tiny, paper_literal"):
        type(PREFERENCE)(**PREFERENCE.model_dump() | {"preset": "fast"})


def test_masks_are_drawn_for_every_level(dip, encoded_pairs, stage_one, generator_folder, tmp_path):
    from PIL import Image

    from mcpipe.core.report import read_mapping, read_report

    params = MasksParams(num_pairs=2, num_measured=3, levels=[0.9, 0.2], seed=0, focus=FOCUS, guidance=1.0)
    masks.run(dip, encoded_pairs, stage_one, generator_folder, tmp_path / "masks", params)
    ratios = read_mapping(tmp_path / "masks" / "focus.json")["a_focus"]
    assert list(ratios) == ["0.9", "0.2"]
    assert all(0 <= ratio <= 1 for ratio in ratios.values())
    assert read_report(tmp_path / "masks")["kept"] == 2
    width, height = Image.open(tmp_path / "masks" / "masks.png").size
    assert (width, height) == (8 * 99 + 3, 2 * 99 + 3)
