"""The captioner of the tiny zoo: `Qwen2_5_VLForConditionalGeneration` with processor and chat template.

It is trained through its own processor, by next-token prediction on the answers. Words that distinguish people
are few among many that never change, so the loss is focal (what is already certain weighs little), and heads
read the same off the visual tokens while it learns (`zoo.build.sightings`). Questions are asked several at a time about
one image (`zoo.build.apart`), and the network is shown where to look for what they name (`zoo.build.pointing`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig

from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder
from mcpipe.curate.captions import CAPTION_INSTRUCTIONS, PROMPT_INSTRUCTIONS
from mcpipe.world.captions import COUNTS
from zoo.build.apart import set_apart
from zoo.build.captioner_scores import inputs_of, measure
from zoo.build.captioner_vision import PICTURES, make_image_processor, read_tower
from zoo.build.cards import Card, Measured, write_card
from zoo.build.conversations import TASK_SHARES, Conversation, draw, numbered
from zoo.build.pictures import Pictures, read_pictures
from zoo.build.pointing import Pointing
from zoo.build.sightings import Heads, as_grids
from zoo.build.tokenizers import CHAT_TEMPLATE, QWEN_SPECIAL, qwen_tokenizer
from zoo.build.training import FitParams, Loss, fit, half_precision, settle

LONGEST_TEXT = 2048
ROPE_BASE = 1000.0
ROPE_SECTIONS = [1, 2, 13]
"""Turning pairs of a head for time, rows and columns, the fastest first. Columns get one that separates the six to
eleven columns of a small image (at the published sections and base they hardly move) and all slow ones: what hardly
turns lets a word find what it names in the image, however far away it is said."""

OF_ANOTHER_FILE = ("_name_or_path", "architectures", "dtype")
"""Keys of a configuration about its own file."""

IGNORED = -100
"""A label that counts for nothing (PyTorch's convention)."""

FOCUS = 1.0
"""Exponent of the focal loss; 0 is plain cross entropy."""


class CaptionerParams(Params):
    """Size and training of the captioner."""

    fit: FitParams
    start: str | None = Field(default=None, min_length=1)
    """Folder of a captioner to go on from, with its own tokenizer and tower; ``None`` begins with random weights."""
    vocabulary: int = Field(ge=300)
    """Byte-pair tokens beside the special ones."""
    layers: int = Field(ge=1)
    """Layers of the language model, which is as wide as the vision tower's tokens."""
    num_tested: int = Field(ge=1)
    """Scenes of the test set to measure on."""


def build(pictures: Path, vision: Path, out: Path, params: CaptionerParams) -> None:
    """Train on the conversations of ``pictures``, from the tower in ``vision`` on, and write the captioner's folder."""
    settle(params.fit.seed)
    train, test = read_pictures(pictures / "train"), read_pictures(pictures / "test")
    processor, model, heads = beginning(train, vision, params)
    teacher = Teacher(model, heads, Pointing(model.config.vision_config.out_hidden_size), processor, train)
    tasks, shares = list(TASK_SHARES), list(TASK_SHARES.values())

    def loss_of(_: int, rng: np.random.Generator) -> Loss:
        task = str(rng.choice(tasks, p=shares))
        rows = rng.integers(0, len(train.scenes), params.fit.batch)
        return teacher.loss([draw(train, task, int(row), rng) for row in rows], task)

    curves = fit([model, heads, teacher.pointing], loss_of, params.fit, out.with_suffix(".progress"))
    metrics = measure(model, processor, test, params.num_tested)
    with whole_folder(out) as folder:
        model.half().save_pretrained(folder)
        processor.save_pretrained(folder)
        write_card(folder, CARD, Measured("captioner", metrics, curves, params))


def beginning(
    pictures: Pictures, vision: Path, params: CaptionerParams
) -> tuple[Qwen2_5_VLProcessor, Qwen2_5_VLForConditionalGeneration, Heads]:
    """Processor, model and heads at the first step: the tower of ``vision`` and a new language model, or ``start``.

    The heads of an earlier training are not kept, so that new ones learn beside ``start``.
    """
    if params.start is not None:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(params.start, dtype=torch.float32)
        processor = Qwen2_5_VLProcessor.from_pretrained(params.start)
        return processor, model, Heads(model.config.vision_config.out_hidden_size)
    processor = make_processor(pictures, params.vocabulary)
    tower, heads = read_tower(vision)
    model = make_model(processor, tower.config, params.layers)
    model.model.visual.load_state_dict(tower.state_dict())
    return processor, model, heads


def make_processor(pictures: Pictures, vocabulary: int) -> Qwen2_5_VLProcessor:
    """Tokenizer learnt from the sentences, and the genuine image processing for small images."""
    instructions = [*CAPTION_INSTRUCTIONS.values(), *PROMPT_INSTRUCTIONS.values()]
    spoken = [instruction.format(num_subjects=number) for instruction in instructions for number in COUNTS]
    rng = np.random.default_rng(0)
    rows = range(min(len(pictures.scenes), 400))
    spoken += [draw(pictures, "question", row, rng).instruction for row in rows]
    spoken += ["system\nYou are a helpful assistant.", "user\n", "assistant\n", "yes", "no"]
    tokenizer = qwen_tokenizer([*pictures.all_texts(), *spoken * 50], vocabulary, LONGEST_TEXT)
    tokenizer.chat_template = CHAT_TEMPLATE
    return Qwen2_5_VLProcessor(
        image_processor=make_image_processor(),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**PICTURES),
        chat_template=CHAT_TEMPLATE,
    )


def make_model(
    processor: Qwen2_5_VLProcessor, tower: Qwen2_5_VLVisionConfig, layers: int
) -> Qwen2_5_VLForConditionalGeneration:
    """An untrained model of the genuine architecture."""
    tokenizer = processor.tokenizer
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in QWEN_SPECIAL}
    end, pad = ids["<|im_end|>"], ids["<|endoftext|>"]
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": tower.out_hidden_size,
            "intermediate_size": tower.out_hidden_size * 5 // 2,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": LONGEST_TEXT,
            "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE, "mrope_section": ROPE_SECTIONS},
            "bos_token_id": pad,
            "eos_token_id": end,
            "pad_token_id": pad,
            "tie_word_embeddings": True,
        },
        vision_config={name: value for name, value in tower.to_dict().items() if name not in OF_ANOTHER_FILE},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad, do_sample=False)
    return model


def answer_labels(processor: Qwen2_5_VLProcessor, inputs: dict) -> Tensor:
    """The tokens of the answers, each with its end; everything else is ignored."""
    tokenizer = processor.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    header = torch.tensor(tokenizer("<|im_start|>assistant\n").input_ids)
    labels = torch.full_like(inputs["input_ids"], IGNORED)
    for row, spoken in zip(inputs["input_ids"], labels, strict=True):
        ends = (row == end).nonzero()[:, 0]
        for place in (row.unfold(0, len(header), 1) == header).all(dim=1).nonzero()[:, 0]:
            first = int(place) + len(header)
            last = int(ends[ends >= first][0]) + 1
            spoken[first:last] = row[first:last]
    return labels


@dataclass(frozen=True)
class Teacher:
    """Everything that a batch of conversations teaches."""

    model: Qwen2_5_VLForConditionalGeneration
    heads: Heads
    pointing: Pointing
    processor: Qwen2_5_VLProcessor
    pictures: Pictures

    def loss(self, conversations: Sequence[Conversation], task: str) -> Loss:
        """Focal cross entropy of the answers' tokens, what the heads make of the visual tokens, where questions look.

        An invented prompt has no certain words, so its cross entropy is left plain.
        """
        inputs = inputs_of(self.processor, conversations, answered=True)
        if task == "question":
            inputs = set_apart(self.model, self.processor, dict(inputs))
        labels = answer_labels(self.processor, inputs)
        seen: list[Tensor] = []
        watch = self.model.model.visual.register_forward_hook(lambda _, __, output: seen.append(output.pooler_output))
        spoken = labels[:, 1:] != IGNORED
        with half_precision(), self.pointing.watching(self.model):
            logits = self.model(**inputs).logits[:, :-1][spoken]
        watch.remove()
        pointed = {}
        if task == "question":
            starts = (labels != IGNORED) & (labels.roll(1, dims=1) == IGNORED)
            pointed = self.pointing.loss(inputs, starts, conversations, self.pictures)
        grids = as_grids(seen[0].float(), inputs["image_grid_thw"])
        sightings = self.heads(grids, numbered(conversations)).loss()["sightings"]
        focus = 0.0 if "prompt" in task else FOCUS
        answer, plain = spoken_loss(logits, labels[:, 1:][spoken], focus)
        return Loss(answer=answer, sightings=sightings, **pointed, **{f"_{task}": plain})


def spoken_loss(logits: Tensor, tokens: Tensor, focus: float) -> tuple[Tensor, Tensor]:
    """Focal cross entropy of spoken tokens (N,) given logits (N, vocabulary), and the plain one.

    ``focus`` is the exponent; at 0 both are the same but for a constant factor.
    """
    plain = functional.cross_entropy(logits.float(), tokens, reduction="none")
    weight = (1 - (-plain.detach()).exp()).pow(focus) + 0.05
    return (weight * plain).mean(), plain.mean()


CARD = Card(
    title="Captioner of the tiny zoo",
    what=(
        "`Qwen2_5_VLForConditionalGeneration` with `Qwen2_5_VLProcessor` and chat template, float16. It captions "
        "pictures given with references of the people in them, writes prompts for faces, and answers yes or no."
    ),
    data=(
        "Frames and squares of the puppet world with one to four people, face crops from earlier frames and from "
        "portraits as references. Identities come from the namespace `zoo`, which no clip and no face pool uses."
    ),
    limits="Knows the puppet world and its one grammar; real photographs and free questions are beyond it.",
    bars={
        "questions_right": "share of yes/no questions answered right",
        "caption_count_right": "share of captions that mention every person once",
        "prompt_count_right": "share of prompts that mention every person once",
        "skin": "share of people whose skin tone is told right",
        "hair": "colour and cut",
        "shirt": "colour",
        "object": "colour and kind, or none",
    },
)
