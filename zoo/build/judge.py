"""The judge of the tiny zoo: `Qwen2_5_VLForConditionalGeneration` that judges images of things and writes prompts.

It begins with the captioner's weights, gets a tokenizer of its own words, learns to see things by the words on its
visual tokens, and then to answer: questions whether an image shows what a phrase says, the score of a prompt by the
instruction of `mcpipe.models.scorers.judge`, and prompts by the instructions of `mcpipe.curate.psr_prompts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import (
    AutoProcessor,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder
from zoo.build.apart import set_apart
from zoo.build.captioner import CHAT_TEMPLATE, FOCUS, IGNORED, LONGEST_TEXT, answer_labels, make_model, spoken_loss
from zoo.build.captioner_scores import inputs_of
from zoo.build.captioner_vision import MOST_PIXELS, PICTURES, grids_of
from zoo.build.cards import Card, Measured, write_card
from zoo.build.conversations import Conversation
from zoo.build.judge_conversations import Judged, Worlds, judged, written
from zoo.build.judge_looking import Looking, PatchWords
from zoo.build.judge_scores import Answering, measure
from zoo.build.pictures import read_pictures
from zoo.build.sightings import as_grids
from zoo.build.things import read_things
from zoo.build.tokenizers import qwen_tokenizer
from zoo.build.training import FitParams, Loss, fit, half_precision, settle

FEWEST_PIXELS = 168 * 168
"""Number of pixels from which on an image is not enlarged: the pipeline's smallest ones are, to be seen in detail."""

VERDICTS = ("yes", "no", " yes", " no")
"""Tokens of a verdict, at the beginning of an answer and within one."""

NUM_TEXTS = 1500
"""Conversations of each kind that the tokenizer learns from."""


class JudgeParams(Params):
    """Training of the judge, whose size is the captioner's."""

    eyes: FitParams
    """The tower alone, on images."""
    fit: FitParams
    """All of it."""
    vocabulary: int = Field(ge=300)
    """Byte-pair tokens beside the special ones."""
    write_share: float = Field(ge=0, le=1)
    """Share of steps on prompts that are written without an image."""
    num_tested: int = Field(ge=1)
    """Scenes of the test set to measure on, and prompts."""


def build(pictures: Path, things: Path, captioner: Path, out: Path, params: JudgeParams) -> None:
    """Train on both image sets, from the captioner on, and write the judge's folder."""
    settle(params.fit.seed)
    train, test = (Worlds(read_things(things / split), read_pictures(pictures / split)) for split in ("train", "test"))
    processor = make_processor(train, params.vocabulary)
    model = from_captioner(processor, captioner)
    width = model.config.text_config.hidden_size
    words, looking = PatchWords(width), Looking(width)
    tower = model.model.visual

    def words_seen(_: int, rng: np.random.Generator) -> Loss:
        conversations = [judged(train, rng) for _ in range(params.eyes.batch)]
        return words.loss(grids_of(tower, processor.image_processor, conversations), conversations)

    eyes = fit([tower, words], words_seen, params.eyes, out.with_suffix(".eyes"))
    teacher = JudgeTeacher(model, words, looking, processor)

    def loss_of(_: int, rng: np.random.Generator) -> Loss:
        if rng.random() < params.write_share:
            return teacher.written_loss([written(train, rng) for _ in range(params.fit.batch)])
        return teacher.judged_loss([judged(train, rng) for _ in range(params.fit.batch)])

    curves = fit([model, words, looking], loss_of, params.fit, out.with_suffix(".progress"))
    metrics = measure(Answering(model, processor), test, params.num_tested)
    curves |= {f"eyes_{name}": values for name, values in eyes.items()}
    with whole_folder(out) as folder:
        model.half().save_pretrained(folder)
        processor.save_pretrained(folder)
        write_card(folder, CARD, Measured("judge", metrics, curves, params))


def make_processor(worlds: Worlds, vocabulary: int) -> Qwen2_5_VLProcessor:
    """Tokenizer learnt from conversations, and the genuine image processing for small images."""
    rng = np.random.default_rng(0)
    spoken = [text for _ in range(NUM_TEXTS) for text in _texts(judged(worlds, rng), written(worlds, rng))]
    frame = ["system\nYou are a helpful assistant.", "user\n", "assistant\n", *VERDICTS]
    tokenizer = qwen_tokenizer([*spoken, *frame * NUM_TEXTS], vocabulary, LONGEST_TEXT)
    tokenizer.chat_template = CHAT_TEMPLATE
    sizes = PICTURES | {"size": {"shortest_edge": FEWEST_PIXELS, "longest_edge": MOST_PIXELS}}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**sizes),
        chat_template=CHAT_TEMPLATE,
    )


def _texts(*conversations: Conversation) -> list[str]:
    asked = chain.from_iterable(conversation.questions for conversation in conversations)
    texts = [text for question in asked for text in (question.text, question.answer)]
    return texts + [text for each in conversations if not each.questions for text in (each.instruction, each.answer)]


def from_captioner(processor: Qwen2_5_VLProcessor, captioner: Path) -> Qwen2_5_VLForConditionalGeneration:
    """The captioner with another tokenizer: a token's embedding is the mean of those of its old tokens."""
    old = Qwen2_5_VLForConditionalGeneration.from_pretrained(captioner, dtype=torch.float32, local_files_only=True)
    before = AutoProcessor.from_pretrained(captioner, local_files_only=True).tokenizer
    model = make_model(processor, old.config.vision_config, old.config.text_config.num_hidden_layers)
    tokenizer = processor.tokenizer
    embedded = old.get_input_embeddings().weight.detach()
    rows = [_pieces(before, tokenizer.convert_ids_to_tokens(token), tokenizer.decode([token]))
            for token in range(len(tokenizer))]  # fmt: skip
    weights = {name: weight for name, weight in old.state_dict().items() if weight.shape[:1] != embedded.shape[:1]}
    model.load_state_dict(weights, strict=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(torch.stack([embedded[row].mean(dim=0) for row in rows]))
    return model


def _pieces(before: object, token: str, text: str) -> list[int]:
    """The old tokens of a new one: itself if it was one, else those of its text."""
    known = before.get_vocab()
    return [known[token]] if token in known else before(text).input_ids


@dataclass(frozen=True)
class JudgeTeacher:
    """Everything that a batch of conversations teaches."""

    model: Qwen2_5_VLForConditionalGeneration
    words: PatchWords
    looking: Looking
    processor: Qwen2_5_VLProcessor

    def judged_loss(self, conversations: Sequence[Judged]) -> Loss:
        """Focal cross entropy of the answers' tokens, the words on the visual tokens, and where verdicts look."""
        inputs = set_apart(self.model, self.processor, dict(inputs_of(self.processor, conversations, answered=True)))
        labels = answer_labels(self.processor, inputs)
        seen: list[Tensor] = []
        watch = self.model.model.visual.register_forward_hook(lambda _, __, output: seen.append(output.pooler_output))
        spoken = labels[:, 1:] != IGNORED
        with half_precision(), self.looking.watching(self.model):
            logits = self.model(**inputs).logits[:, :-1][spoken]
        watch.remove()
        verdicts = torch.isin(labels, torch.tensor(self.verdict_ids()))
        looked = self.looking.loss(inputs, verdicts, conversations)
        words = self.words.loss(as_grids(seen[0].float(), inputs["image_grid_thw"]), conversations)["words"]
        answer, plain = spoken_loss(logits, labels[:, 1:][spoken], FOCUS)
        said = verdicts_right(logits, labels[:, 1:][spoken], verdicts[:, 1:][spoken])
        return Loss(answer=answer, words=words, **looked, _judged=plain, _verdicts_right=said)

    def written_loss(self, conversations: Sequence[Conversation]) -> Loss:
        """Cross entropy of the prompts' tokens."""
        inputs = inputs_of(self.processor, conversations, answered=True)
        labels = answer_labels(self.processor, inputs)
        spoken = labels[:, 1:] != IGNORED
        with half_precision():
            logits = self.model(**inputs).logits[:, :-1][spoken]
        answer, plain = spoken_loss(logits, labels[:, 1:][spoken], 0.0)
        return Loss(prompt=answer, _written=plain)

    def verdict_ids(self) -> list[int]:
        """The tokens of `VERDICTS`.

        Raises:
            ValueError: one of them is several tokens.
        """
        ids = [self.processor.tokenizer(verdict).input_ids for verdict in VERDICTS]
        if any(len(each) != 1 for each in ids):
            raise ValueError(f"a verdict is several tokens: {ids}; raise judge.vocabulary")
        return [token for (token,) in ids]


def verdicts_right(logits: Tensor, tokens: Tensor, verdicts: Tensor) -> Tensor:
    """Share of verdicts that are the likeliest token."""
    return (logits[verdicts].argmax(dim=-1) == tokens[verdicts]).float().mean()


CARD = Card(
    title="Judge of the tiny zoo",
    what=(
        "`Qwen2_5_VLForConditionalGeneration` with `Qwen2_5_VLProcessor` and chat template, float16, begun with the "
        "captioner's weights. It answers whether an image shows what a phrase says, scores from 0 to 10 how much of a "
        "prompt is in an image, and writes prompts from categories without an image."
    ),
    data=(
        "Scenes of one to three things and references of one, scenes of people, and captions of both. Things come from "
        "the namespace `zoo things`, people from `zoo`; no row, clip or face pool uses them."
    ),
    limits="",
    bars={},
)
