"""How the tiny captioner is taught: what counts as an answer, and where a question should make it look."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from imports import ROOT
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from mcpipe.world.captions import VOCABULARY
from mcpipe.world.identities import world_rng
from zoo.build.apart import set_apart
from zoo.build.captioner import IGNORED, answer_labels
from zoo.build.captioner_scores import inputs_of
from zoo.build.conversations import NUM_QUESTIONS, question, questions
from zoo.build.pictures import read_pictures, write_pictures
from zoo.build.pointing import ASKED, LAYER, NOWHERE, Pointing, looked_for
from zoo.build.regions import NAMES


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder, partial(world_rng, "zoo-test"), "train", (6, 2, 2))
    return read_pictures(folder)


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(ROOT / "zoo" / "captioner", local_files_only=True)


def test_questions_differ_and_are_as_often_true_as_false(pictures):
    rng = np.random.default_rng(0)
    conversations = [questions(pictures, index % 6, rng).questions for index in range(60)]
    assert all(len({item.text for item in several}) == NUM_QUESTIONS for several in conversations)
    first = [question(pictures, index % 6, rng).questions[0] for index in range(600)]
    for attribute in ("shirt_colour", "object"):
        answers = [item.answer for item in first if item.names is not None and item.names[0] == attribute]
        assert 0.3 < np.mean([answer == "yes" for answer in answers]) < 0.7
    assert {item.names for item in first} <= set(ASKED)


def test_every_answer_counts_and_nothing_else(pictures, processor):
    conversations = [questions(pictures, index, np.random.default_rng(index)) for index in range(2)]
    labels = answer_labels(processor, inputs_of(processor, conversations, answered=True))
    for conversation, row in zip(conversations, labels, strict=True):
        text = processor.tokenizer.decode(row[row != IGNORED])
        assert text == "".join(f"{question.answer}<|im_end|>" for question in conversation.questions)


@pytest.fixture(scope="module")
def model():
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(
        ROOT / "zoo" / "captioner", dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()


@torch.no_grad()
def test_questions_set_apart_are_answered_as_if_each_were_alone(pictures, processor, model):
    model.set_attn_implementation("sdpa")
    together = [questions(pictures, index, np.random.default_rng(index)) for index in range(2)]
    inputs = set_apart(model, processor, dict(inputs_of(processor, together, answered=True)))
    labels = answer_labels(processor, inputs)
    starts = (labels != IGNORED) & (labels.roll(1, dims=1) == IGNORED)
    logits = model(**inputs).logits[:, :-1][starts[:, 1:]]
    alone = [
        replace(conversation, instruction=item.text, answer=item.answer, questions=(item,))
        for conversation in together
        for item in conversation.questions
    ]
    expected = [model(**inputs_of(processor, [conversation], answered=False)).logits[0, -1] for conversation in alone]
    torch.testing.assert_close(logits, torch.stack(expected), atol=2e-4, rtol=1e-3)


@torch.no_grad()
def test_the_attention_that_is_taught_is_the_one_the_network_uses(pictures, processor, model):
    model.set_attn_implementation("eager")
    conversations = [questions(pictures, index, np.random.default_rng(index)) for index in range(2)]
    inputs = dict(inputs_of(processor, conversations, answered=True))
    pointing = Pointing(model.config.text_config.hidden_size)
    with pointing.watching(model):
        used = model(**inputs, output_attentions=True).attentions[LAYER]
    lookers = torch.tensor([60, 150])
    taught = pointing.attention(1, lookers, torch.arange(used.shape[-1])[None] <= lookers[:, None])
    torch.testing.assert_close(taught, used[1, 0, lookers], atol=1e-5, rtol=1e-4)


def test_a_question_looks_at_what_it_names_or_nowhere(pictures):
    rng = np.random.default_rng(3)
    several = questions(pictures, 0, rng)
    regions = torch.as_tensor(several.target.regions(pictures, (8, 8)).copy()).flatten(0, 1)
    place = torch.arange(10, 74)
    for item in several.questions:
        looked = looked_for(item, regions, place).tolist()
        if item.names is None:
            assert not looked
        elif item.answer == "no":
            assert looked == [NOWHERE]
        else:
            attribute, value = item.names
            classes = regions[torch.tensor(looked, dtype=torch.long) - 10, NAMES.index(attribute)]
            assert (classes == VOCABULARY[attribute].index(value)).all()
