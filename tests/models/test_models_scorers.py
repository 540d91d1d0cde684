"""The adapters of CLIP, DINO, HPS and Qwen2.5-VL: what they promise, with the zoo's checkpoints."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.dino import Dino
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.models.scorers.pick_score import PickScore

ADAPTERS: dict[str, Callable[[Path], object]] = {
    "captioner": Qwen2_5VL,
    "clip": Clip,
    "clip_reward": Clip,
    "dino": Dino,
    "dinov2": Dino,
    "hps": HpsV2_1,
    "hps_reward": HpsV2_1,
}


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((96, 96), (48, 80))]


def weights_of(folder: Path) -> Path:
    return next(file for pattern in ("*.safetensors", "*.pt") for file in folder.glob(pattern))


@pytest.mark.parametrize("name", ["clip", "dino", "dinov2"])
def test_embeddings_of_pictures_have_unit_length(root, pictures, name):
    embeddings = ADAPTERS[name](root / "zoo" / name).pictures(pictures)
    assert len(embeddings) == len(pictures)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["clip", "dino", "dinov2"])
def test_an_embedding_does_not_depend_on_the_rest_of_the_batch(root, pictures, name):
    model = ADAPTERS[name](root / "zoo" / name)
    alone = np.concatenate([model.pictures([picture]) for picture in pictures])
    np.testing.assert_allclose(model.pictures(pictures), alone, atol=1e-5)


def test_clip_cuts_long_texts_and_pads_short_ones_without_effect(root):
    clip = Clip(root / "zoo" / "clip")
    short = clip.texts(["one person in a park"])
    beside_long = clip.texts(["one person in a park", "a person with glasses and " * 60])
    np.testing.assert_allclose(np.linalg.norm(beside_long, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(beside_long[0], short[0], atol=1e-5)


def test_hps_is_the_cosine_of_each_picture_and_its_own_prompt(root, pictures):
    hps = HpsV2_1(root / "zoo" / "hps")
    prompts = ["one person in a park", "two people on a beach"]
    both = hps.scores(pictures, prompts)
    assert np.all(np.abs(both) <= 1)
    apart = [hps.scores([picture], [prompt])[0] for picture, prompt in zip(pictures, prompts, strict=True)]
    np.testing.assert_allclose(both, apart, atol=1e-5)
    swapped = hps.scores(pictures, prompts[::-1])
    assert not np.allclose(both, swapped, atol=1e-6)


def test_pick_score_is_the_cosine_times_the_models_own_factor(root, pictures, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(root / "zoo" / "clip", tmp_path / "clip")
    weights = load_file(weights_of(folder))
    save_file(weights | {"logit_scale": torch.tensor(3.0)}, weights_of(folder), metadata={"format": "pt"})
    prompts, clip = ["one person in a park", "two people on a beach"], Clip(folder)
    cosines = (clip.pictures(pictures) * clip.texts(prompts)).sum(axis=1)
    np.testing.assert_allclose(PickScore(folder).scores(pictures, prompts), np.exp(3.0) * cosines, rtol=1e-3)


def test_captioner_samples_reproducibly_and_leaves_the_global_generator_alone(root, pictures):
    import torch

    captioner = Qwen2_5VL(root / "zoo" / "captioner")

    def answer(seed: int) -> str:
        return captioner.answer(pictures, "What is this?", temperature=2.0, seed=seed, max_tokens=12)

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert answer(1) == answer(1)
    assert torch.equal(torch.rand(3), expected)
    assert len({answer(seed) for seed in range(4)}) > 1


def test_captioner_decodes_greedily_at_temperature_zero(root, pictures):
    captioner = Qwen2_5VL(root / "zoo" / "captioner")
    answers = {captioner.answer(pictures, "Describe.", temperature=0, seed=seed, max_tokens=10) for seed in range(3)}
    assert len(answers) == 1


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_missing_folder_is_named(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "absent")):
        ADAPTERS[name](tmp_path / "absent")


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("damage", ["cut", "pointer"])
def test_damaged_weights_are_refused_in_one_line_that_names_them(root, tmp_path, name, damage):
    folder = shutil.copytree(root / "zoo" / name, tmp_path / name)
    weights = weights_of(folder)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1188050\n"
    weights.write_bytes(weights.read_bytes()[:5000] if damage == "cut" else pointer)
    with pytest.raises(ValueError, match=str(folder)) as caught:
        ADAPTERS[name](folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ADAPTERS)
def test_absent_weights_are_asked_for(root, tmp_path, name):
    folder = shutil.copytree(root / "zoo" / name, tmp_path / name)
    weights_of(folder).unlink()
    with pytest.raises(FileNotFoundError, match=str(folder)):
        ADAPTERS[name](folder)


@pytest.mark.parametrize(
    ("name", "other"), [("clip", "captioner"), ("captioner", "clip"), ("dino", "clip"), ("hps", "clip")]
)
def test_the_checkpoint_of_another_model_is_refused(root, name, other):
    with pytest.raises((ValueError, FileNotFoundError), match=str(root / "zoo" / other)):
        ADAPTERS[name](root / "zoo" / other)


def test_weights_that_a_checkpoint_lacks_are_not_invented(root, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(root / "zoo" / "clip", tmp_path / "clip")
    weights = load_file(weights_of(folder))
    del weights["visual_projection.weight"]
    save_file(weights, weights_of(folder), metadata={"format": "pt"})
    with pytest.raises(ValueError, match="1 weights missing"):
        Clip(folder)
