"""What teaches the tiny zoo's HPSv3, and the layout of its file."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoProcessor, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from mcpipe.models.scorers.hpsv3 import OUTPUTS, reward_head
from mcpipe.models.scorers.hpsv3_prompt import REWARD_TOKEN, TEMPLATE
from zoo.build.hpsv3_teacher import AuxiliaryHeads, PreferenceTeacher, prefers

CAPTIONS = [
    "one person in a park",
    "two people on a beach: a person wearing a red shirt; a person wearing a blue shirt",
]


@pytest.fixture(scope="module")
def teacher(root):
    folder = root / "zoo" / "hpsv3"
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig.from_pretrained(folder))
    width = model.lm_head.in_features
    head, heads = reward_head([width, 8, 4, OUTPUTS]), AuxiliaryHeads(width)
    return PreferenceTeacher(model, head, heads, AutoProcessor.from_pretrained(folder))


@pytest.mark.parametrize(("margin", "deviations"), [(0.5, (0.3, 0.2)), (-1.0, (1.0, 0.5)), (2.0, (1e-6, 1e-6))])
def test_the_chance_to_win_is_the_mean_over_both_distributions(margin, deviations):
    better, worse = (torch.tensor([mean, np.log(each)]) for mean, each in zip((margin, 0.0), deviations, strict=True))
    samples = margin + np.hypot(*deviations) * np.random.default_rng(0).normal(size=200_000)
    assert float(prefers(better, worse).exp()) == pytest.approx(float((1 / (1 + np.exp(-samples))).mean()), abs=0.01)


def test_the_words_of_a_conversation_are_those_of_its_sentence(teacher):
    tokens = teacher._tokens(CAPTIONS, 3)
    tokenizer = teacher._processor.tokenizer
    words = [tokenizer.decode(row[chosen]) for row, chosen in zip(tokens, teacher._words(tokens), strict=True)]
    assert words == CAPTIONS
    assert (tokens == tokenizer.convert_tokens_to_ids(teacher._processor.image_token)).sum(dim=1).tolist() == [3, 3]


def test_what_surrounds_the_sentence_is_a_token_each(teacher):
    tokenizer, (before, after) = teacher._processor.tokenizer, TEMPLATE.split("{text_prompt}")
    parts = [before, *after.split(REWARD_TOKEN)]
    assert [len(tokenizer(part)["input_ids"]) for part in parts] == [1, 1, 1]


def test_every_term_of_the_loss_reaches_what_it_teaches(teacher):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 2, 96, 96, 3), dtype=np.uint8)
    terms = teacher.loss(images, np.array([[0, 0], [0.3, 0.4], [0.8, 0.9]]), CAPTIONS)
    assert [name for name in terms if not name.startswith("_")] == [
        "preference", "matching", "words", "contrast", "language"
    ]  # fmt: skip
    terms.total().backward()
    for module in (teacher._model.model.visual, teacher._model.model.language_model, teacher._head, teacher._heads):
        assert any(bool(weight.grad.any()) for weight in module.parameters() if weight.grad is not None)


def test_the_file_has_the_names_of_the_published_one(root):
    with safe_open(root / "zoo" / "hpsv3" / "HPSv3_puppet.safetensors", "pt") as file:
        names = set(file.keys())
        kinds = {str(file.get_tensor(name).dtype) for name in names}
    assert {name.split(".")[0] for name in names} == {"visual", "model", "rm_head"}
    assert {"model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "rm_head.5.bias"} < names
    assert kinds == {"torch.float16"}
