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
from torch.nn import functional
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
from zoo.build.captioner import FOCUS, IGNORED, LONGEST_TEXT, answer_labels, make_model, spoken_loss
from zoo.build.captioner_scores import inputs_of
from zoo.build.captioner_vision import MOST_PIXELS, PICTURES, grids_of
from zoo.build.cards import Card, Measured, write_card
from zoo.build.conversations import Conversation
from zoo.build.judge_conversations import Judged, Worlds, judged, written
from zoo.build.judge_looking import Looking, PatchWords
from zoo.build.judge_scores import InBatches, measure
from zoo.build.pictures import read_pictures
from zoo.build.sightings import as_grids
from zoo.build.things import read_things
from zoo.build.tokenizers import CHAT_TEMPLATE, qwen_tokenizer
from zoo.build.training import FitParams, Loss, fit, half_precision, settle

FEWEST_PIXELS = 168 * 168
"""Number of pixels from which on an image is not enlarged: the pipeline's smallest ones are, to be seen in detail."""

VERDICTS = ("yes", "no", " yes", " no")
"""Tokens of a verdict, at the beginning of an answer and within one."""

YES_WEIGHT = 2.0
"""Weight of true claims against false ones: a filter that loses good rows costs more than one that keeps some bad."""

WRITTEN = 2
"""Prompts of a step, in batches; they are short."""

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
            return teacher.written_loss([written(train, rng) for _ in range(WRITTEN * params.fit.batch)])
        return teacher.judged_loss([judged(train, rng) for _ in range(params.fit.batch)])

    curves = fit([model, words, looking], loss_of, params.fit, out.with_suffix(".progress"))
    metrics = measure(InBatches(model, processor), test, params.num_tested)
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
        """Focal cross entropy of answers, plain one of their verdicts, words on visual tokens, where verdicts look."""
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
        tokens, decisive = labels[:, 1:][spoken], verdicts[:, 1:][spoken]
        answer, _ = spoken_loss(logits, tokens, FOCUS)
        true = torch.isin(tokens[decisive], torch.tensor(self.verdict_ids()[::2]))
        weight = 1 + (YES_WEIGHT - 1) * true.float()
        unlikely = functional.cross_entropy(logits[decisive].float(), tokens[decisive], reduction="none")
        verdict = (weight * unlikely).sum() / weight.sum()
        right = (logits[decisive].argmax(dim=-1) == tokens[decisive]).float().mean()
        return Loss(answer=answer, verdict=verdict, words=words, **looked, _verdicts_right=right)

    def written_loss(self, conversations: Sequence[Conversation]) -> Loss:
        """Cross entropy of the prompts' tokens."""
        inputs = inputs_of(self.processor, conversations, answered=True)
        labels = answer_labels(self.processor, inputs)
        spoken = labels[:, 1:] != IGNORED
        with half_precision():
            logits = self.model(**inputs).logits[:, :-1][spoken]
        answer, _ = spoken_loss(logits, labels[:, 1:][spoken], 0.0)
        return Loss(prompt=answer)

    def verdict_ids(self) -> list[int]:
        """The tokens of `VERDICTS`.

        Raises:
            ValueError: one of them is several tokens.
        """
        ids = [self.processor.tokenizer(verdict).input_ids for verdict in VERDICTS]
        if any(len(each) != 1 for each in ids):
            raise ValueError(f"a verdict is several tokens: {ids}; raise judge.vocabulary")
        return [token for (token,) in ids]


LIMITS = (
    "Knows the puppet world and the instructions it was taught; a question in other words, a real photograph or a "
    "scene of things and people together are beyond it. A claim that is wrong in one word is often taken for true. The "
    "scores from 0 to 10 have the right form and a larger error than a constant: they are of no use. Prompts from "
    "categories sometimes miss one, and phrases are not always kept, so both have to be checked."
)
CARD = Card(
    title="Judge of the tiny zoo",
    what=(
        "`Qwen2_5_VLForConditionalGeneration` with `Qwen2_5_VLProcessor` and chat template, float16, begun with the "
        "captioner's weights. It answers whether an image shows what a phrase says, scores from 0 to 10 how much of a "
        "prompt is in an image, and writes prompts from categories without an image."
    ),
    data=(
        "Scenes of one to three things and references of one, scenes of people, and captions of both. Things come from "
        "the namespace `zoo things`, people from `zoo`; no row, clip or face pool uses them. "
        "The recipe below is that of the second of two runs; `zoo/build/params.yaml` tells about the first."
    ),
    limits=LIMITS,
    bars={
        "shows_true_right": "share of right answers whether a scene shows a thing, where it does",
        "shows_false_right": "where one word of the phrase is wrong",
        "shows_other_right": "where all of them are",
        "exactly_one_true_right": "the same for exactly one thing, whole and not cut off",
        "exactly_one_false_right": "where one word is wrong",
        "alone_true_right": "the same for a thing alone",
        "alone_false_right": "where one word is wrong",
        "people_true_right": "the same for people",
        "people_false_right": "where one word is wrong",
        "questions_right": "mean of the first two",
        "questions_right_always_yes": "floor: yes to each of these questions",
        "questions_right_blank": "floor: the same questions about a gray image",
        "score_parsed": "share of answers with a valid score",
        "score_error": "mean absolute error of the score from 0 to 10",
        "score_error_constant": "floor: the best constant",
        "score_matched": "mean score of an image's own caption",
        "score_foreign": "mean score of another image's caption",
        "prompt_names_all": "share of prompts that name all categories in order and nothing else",
        "prompt_keeps_phrase": "share of prompts about one subject that keep its phrase to the letter",
    },
)
