"""How the zoo is built: trainings that go on where they stopped, tokenizers, conversations, spoiled pictures."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from mcpipe.world.captions import describe_scene, describe_setting
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.scene import sample_scene
from zoo.build import training
from zoo.build.forms import caption_and_opposite
from zoo.build.hps import WAYS, spoil
from zoo.build.tokenizers import clip_tokenizer, t5_tokenizer
from zoo.build.training import FitParams, Loss, fit, rate

TEXTS = [
    "two people in a park: on the left a person with tan skin and a bald head, wearing a red shirt; "
    "on the right a person with pale skin and glasses, wearing an orange shirt"
]


def params(steps: int) -> FitParams:
    return FitParams(seed=3, steps=steps, batch=4, learning_rate=0.05, warmup_steps=2, weight_decay=0.01, ema_decay=0.9)


def trained(file, steps: int, interrupted_at: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Linear(3, 1)

    def loss_of(step: int, rng: np.random.Generator) -> Loss:
        if step == interrupted_at:
            raise KeyboardInterrupt
        inputs = torch.from_numpy(rng.normal(size=(4, 3))).float() + 0.1 * torch.randn(4, 3)
        return Loss(error=(module(inputs) - inputs.sum(dim=1, keepdim=True)).square().mean())

    fit([module], loss_of, params(steps), file)
    return module


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_SAVES", 0.0)
    undisturbed = trained(tmp_path / "a.progress", 8)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b.progress", 8, interrupted_at=5)
    resumed = trained(tmp_path / "b.progress", 8)
    assert torch.equal(undisturbed.weight, resumed.weight)
    assert not list(tmp_path.iterdir())


def test_progress_of_other_settings_is_not_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_SAVES", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "a.progress", 20, interrupted_at=5)
    fresh = trained(tmp_path / "b.progress", 8)
    assert torch.equal(trained(tmp_path / "a.progress", 8).weight, fresh.weight)


def test_a_loss_that_is_not_finite_stops_with_its_terms(tmp_path):
    module = nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="odd"):
        fit([module], lambda _, __: Loss(odd=module.weight.sum() * float("nan")), params(2), tmp_path / "x.progress")


def test_learning_rate_rises_then_falls_to_its_floor():
    rates = [rate(step, params(100)) for step in range(100)]
    assert rates[0] < rates[1]
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[-1] == pytest.approx(training.LOWEST_RATE)


def test_tokenizers_survive_saving_and_keep_words_whole(tmp_path):
    for name, tokenizer in {"clip": clip_tokenizer(TEXTS * 20, 600, 77), "t5": t5_tokenizer(TEXTS, 64)}.items():
        tokenizer.save_pretrained(tmp_path / name)
        again = type(tokenizer).from_pretrained(tmp_path / name)
        assert again(TEXTS[0]).input_ids == tokenizer(TEXTS[0]).input_ids
    assert len(t5_tokenizer(TEXTS, 64)(TEXTS[0]).input_ids) == len(TEXTS[0].split()) + 1


@pytest.mark.parametrize("way", range(len(WAYS)))
def test_every_way_of_spoiling_spoils_more_at_a_higher_level(way):
    rng = np.random.default_rng(0)
    picture, other = (rng.integers(0, 256, (12, 12, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(2))
    damage = [
        np.abs(spoil(picture, other, level, [way], np.random.default_rng(1)).astype(float) - picture).mean()
        for level in (0.0, 0.3, 1.0)
    ]
    assert damage[0] == 0
    assert damage[0] < damage[1] < damage[2]


def scene_record(count):
    rng = world_rng("tests of the forms", count)
    scene = sample_scene(rng, [sample_identity(rng) for _ in range(count)])
    mirrored = dataclasses.replace(scene, people=scene.people[::-1])
    return {
        "caption": describe_scene(scene),
        "mirrored_caption": describe_scene(mirrored),
        "settings": [describe_setting(scene, rng) for _ in range(6)],
        "mirrored_settings": [describe_setting(mirrored, rng) for _ in range(6)],
    }


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("mirror", [False, True])
def test_captions_of_both_forms_are_drawn_and_only_false_ones_are_negatives(count, mirror):
    """A caption that names no sides is true of the mirror image, too."""
    record, rng = scene_record(count), np.random.default_rng(0)
    own, other = ("mirrored_", "") if mirror else ("", "mirrored_")
    forms = set()
    for _ in range(60):
        right, wrong = caption_and_opposite(record, mirror, rng)
        is_setting = right in record[f"{own}settings"]
        assert is_setting or right == record[f"{own}caption"]
        forms.add(is_setting)
        if wrong is not None:
            assert wrong in record[f"{other}settings"] if is_setting else wrong == record[f"{other}caption"]
            assert "on the left" in wrong
        assert (wrong is None) >= (count == 1)
    assert forms == {False, True}
