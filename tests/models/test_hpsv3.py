"""HPSv3 on a tiny random Qwen2-VL in the published format, under the names of both generations of transformers."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from mcpipe.cli.doctor.checkpoints import inspect_model
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.models.scorers.hpsv3 import HpsV3, at_token, plain_positions
from mcpipe.models.scorers.hpsv3_prompt import REWARD_TOKEN, TEMPLATE
from mcpipe.models.scorers.preferences import load_preference, preference_name

WIDTH, HEAD_WIDTHS = 32, (12, 6)
FILE = "HPSv3.safetensors"
PROMPTS = ["one person in a park", "two people on a beach: a person wearing a red shirt; a person wearing a blue shirt"]
SHA256 = "f6ee57479d4e9eee76b49c00dc962e1e696a5a2b3cc32cebd9b1fa76fe27502c"
"""Digest of the published instruction and the text behind it, joined."""


def older(name: str) -> str:
    """The name of a weight in transformers 4.45, with which the published file was written."""
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def head(rng: np.random.Generator, width: int = WIDTH) -> dict[str, torch.Tensor]:
    """Weights of a random head under their published names."""
    sizes = (width, *HEAD_WIDTHS, 2)
    weights = {}
    for layer, size, following in zip((0, 3, 5), sizes[:-1], sizes[1:], strict=True):
        weights[f"rm_head.{layer}.weight"] = torch.tensor(rng.normal(0, 0.5, (following, size)), dtype=torch.float32)
        weights[f"rm_head.{layer}.bias"] = torch.tensor(rng.normal(0, 0.5, following), dtype=torch.float32)
    return weights


@pytest.fixture(scope="module")
def folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as published: old names, one row of embeddings for the reward token, the tokenizer without it."""
    folder = tmp_path_factory.mktemp("hpsv3")
    tokenizer = AutoTokenizer.from_pretrained(root / "zoo" / "judge")
    images = {"size": {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}, "patch_size": 14, "merge_size": 2}
    template = (root / "zoo" / "judge" / "chat_template.jinja").read_text(encoding="utf-8")
    Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**images), tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**images), chat_template=template,
    ).save_pretrained(folder)  # fmt: skip
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{word}|>")
        for name, word in (
            ("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }  # fmt: skip
    text = {
        "vocab_size": len(tokenizer) + 5, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [2, 1, 1]},
    }  # fmt: skip
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": WIDTH, "mlp_ratio": 2, "num_heads": 2}
    Qwen2VLConfig(text_config=text, vision_config=vision, **ids).save_pretrained(folder)
    config = Qwen2VLConfig(text_config=text | {"vocab_size": len(tokenizer) + 1}, vision_config=vision, **ids)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2VLForConditionalGeneration(config)
        for weight in model.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    weights = {older(name): weight.clone() for name, weight in model.state_dict().items()}
    assert {"visual.patch_embed.proj.weight", "model.embed_tokens.weight", "lm_head.weight"} < set(weights)
    save_file(weights | head(np.random.default_rng(0)), folder / FILE)
    return folder


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((96, 96), (48, 120))]


@pytest.fixture(scope="module")
def scorer(folder: Path) -> HpsV3:
    return HpsV3(folder)


def changed(folder: Path, place: Path, weights: dict[str, torch.Tensor]) -> Path:
    """A copy of a checkpoint with other weights."""
    place.mkdir()
    for file in folder.iterdir():
        if file.name != FILE:
            (place / file.name).write_bytes(file.read_bytes())
    save_file(weights, place / FILE)
    return place


def test_the_text_is_the_published_one_to_the_letter():
    assert hashlib.sha256(TEMPLATE.encode()).hexdigest() == SHA256
    assert TEMPLATE.count(REWARD_TOKEN) == TEMPLATE.count("{text_prompt}") == 1


def test_a_score_does_not_depend_on_the_rest_of_the_batch(scorer, pictures):
    together = scorer.scores(pictures * 5, PROMPTS * 5)
    apart = [scorer.scores([picture], [prompt])[0] for picture, prompt in zip(pictures, PROMPTS, strict=True)]
    np.testing.assert_allclose(together, apart * 5, atol=1e-5)
    assert abs(apart[0] - apart[1]) > 1e-3


def test_both_image_and_prompt_count(scorer, pictures):
    first = scorer.scores(pictures[:1], PROMPTS[:1])
    assert abs(scorer.scores(pictures[1:], PROMPTS[:1]) - first) > 1e-4
    assert abs(scorer.scores(pictures[:1], PROMPTS[1:]) - first) > 1e-4


def test_head_and_positions_are_as_computed_by_hand(folder, scorer, pictures):
    """The network is called as transformers 4.45 called it, on embeddings, and the head is matrix products."""
    inputs = scorer._inputs(pictures[:1], PROMPTS[:1])
    tokens = inputs["input_ids"]
    model = Qwen2VLForConditionalGeneration(scorer._model.config)
    model.load_state_dict(
        {
            name.replace("visual.", "model.visual.") if name.startswith("visual.")
            else name.replace("model.", "model.language_model.", 1): weight
            for name, weight in load_file(folder / FILE).items() if not name.startswith("rm_head.")
        }
    )  # fmt: skip
    embedded = model.get_input_embeddings()(tokens).detach().clone()
    seen = model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
    embedded[tokens == model.config.image_token_id] = seen.detach()
    # Without positions and image grids, the language model counts tokens one by one.
    states = model.model.language_model(inputs_embeds=embedded).last_hidden_state[0]
    place = int((tokens[0] == scorer._processor.tokenizer.convert_tokens_to_ids(REWARD_TOKEN)).nonzero())
    own = {name: weight.numpy() for name, weight in load_file(folder / FILE).items() if name.startswith("rm_head.")}
    value = states[place].detach().numpy()
    for layer in (0, 3, 5):
        value = own[f"rm_head.{layer}.weight"] @ value + own[f"rm_head.{layer}.bias"]
        value = value if layer == 5 else np.maximum(value, 0)  # noqa: PLR2004  the last layer
    mean, deviation = scorer.estimates(pictures[:1], PROMPTS[:1])[0]
    np.testing.assert_allclose(mean, value[0], rtol=1e-4)
    np.testing.assert_allclose(deviation, np.exp(value[1]), rtol=1e-4)


def test_names_of_newer_releases_are_read_alike(folder, scorer, pictures, tmp_path):
    newer = {}
    for name, weight in load_file(folder / FILE).items():
        new = name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name
        newer[new.replace("visual.", "model.visual.", 1) if new.startswith("visual.") else new] = weight
    scores = HpsV3(changed(folder, tmp_path / "newer", newer)).scores(pictures, PROMPTS)
    np.testing.assert_array_equal(scores, scorer.scores(pictures, PROMPTS))


def test_weights_of_the_unused_language_head_may_be_absent(folder, scorer, pictures, tmp_path):
    weights = {name: weight for name, weight in load_file(folder / FILE).items() if name != "lm_head.weight"}
    scores = HpsV3(changed(folder, tmp_path / "headless", weights)).scores(pictures, PROMPTS)
    np.testing.assert_array_equal(scores, scorer.scores(pictures, PROMPTS))


def test_images_have_one_area_and_their_own_shape(scorer, pictures):
    grids = scorer._inputs(pictures, PROMPTS)["image_grid_thw"].tolist()
    assert grids == [[1, 8, 8], [1, 6, 14]]


def test_a_prompt_that_holds_the_reward_token_is_read_at_the_last(scorer, pictures):
    states = torch.arange(12.0).view(2, 6, 1)
    tokens = torch.tensor([[1, 7, 3, 7, 5, 0], [1, 2, 7, 4, 5, 0]])
    assert at_token(states, tokens, 7).flatten().tolist() == [3.0, 8.0]
    assert plain_positions(tokens)[2, 1].tolist() == [0, 1, 2, 3, 4, 5]
    assert np.isfinite(scorer.scores(pictures[:1], [f"a person {REWARD_TOKEN} {{text}}"])).all()


def test_models_are_told_by_their_weights(root, folder):
    assert preference_name(folder) == "HPSv3"
    assert preference_name(root / "zoo" / "hps_reward") == "HPS v2.1"
    assert isinstance(load_preference(folder), HpsV3)
    assert isinstance(load_preference(root / "zoo" / "hps_reward"), HpsV2_1)


def test_the_doctor_counts_its_weights(folder):
    total = sum(weight.numel() for weight in load_file(folder / FILE).values())
    assert inspect_model("preference", folder) == f"HPSv3, {total / 1e6:,.1f} M weights"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: {n: t for n, t in w.items() if not n.startswith("rm_head.")}, "has no reward head"),
        (lambda w: w | head(np.random.default_rng(1), WIDTH + 4), "reads states of width 36; the configuration says"),
        (lambda w: w | {"rm_head.5.weight": torch.zeros(1, 6), "rm_head.5.bias": torch.zeros(1)}, "has 1 outputs"),
        (lambda w: {n: t for n, t in w.items() if n != "model.norm.weight"}, "1 weights missing, first"),
        (lambda w: w | {"model.other.weight": torch.zeros(2)}, "1 weights unknown, first"),
        (lambda w: w | {"model.norm.weight": torch.zeros(WIDTH + 1)}, "no (usable|whole) HPSv3 checkpoint"),
        (lambda w: {n: t for n, t in w.items() if "embed_tokens" not in n}, "has no model.embed_tokens.weight"),
        (lambda w: w | {"model.embed_tokens.weight": w["model.embed_tokens.weight"][:-1],
                        "lm_head.weight": w["lm_head.weight"][:-1]}, "is the tokenizer Qwen2-VL's"),
    ],
)  # fmt: skip
def test_unfit_weights_are_refused_in_one_line(folder, tmp_path, edit, message):
    unfit = changed(folder, tmp_path / "unfit", edit(load_file(folder / FILE)))
    with pytest.raises(ValueError, match=message) as caught:
        HpsV3(unfit)
    assert str(unfit / FILE) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_head_is_a_problem_for_the_doctor(folder, tmp_path):
    weights = {name: weight for name, weight in load_file(folder / FILE).items() if not name.startswith("rm_head.")}
    with pytest.raises(ValueError, match="has no reward head"):
        inspect_model("preference", changed(folder, tmp_path / "headless", weights))


def test_another_architecture_is_refused(folder, tmp_path):
    other = changed(folder, tmp_path / "other", load_file(folder / FILE))
    (other / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}), encoding="utf-8")
    with pytest.raises(ValueError, match="is no Qwen2-VL's but of type qwen2_5_vl"):
        HpsV3(other)
