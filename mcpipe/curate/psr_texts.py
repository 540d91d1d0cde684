"""Texts of synthetic training data (PSR, arXiv:2512.01236): drawn categories, checked prompts, captions without looks.

A text names two to four subjects by their categories. Of two subjects it has one of five task types, of three and of
four the type of that name. What the language model wrote is checked: every category has to be named.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import UInt8
from pydantic import Field, model_validator

from mcpipe.core.params import Params, RecordsPerShard, TakenFrom
from mcpipe.core.records import RejectionError
from mcpipe.core.schemas.typed import TypedRecord
from mcpipe.curate.object_rows import with_article

Task = Literal["attribute", "background", "action", "position", "complex", "three", "four"]
"""The task types of PSR, which are the subsets of PSRBench."""
NUMBERS = {"two": 2, "three": 3, "four": 4}
"""Number of subjects by its name."""
WITH_SIDES: tuple[Task, ...] = ("position", "complex", "three", "four")
"""Task types whose captions say where every subject is; the others name the subjects and the place."""
RECAPTION = (
    "Rewrite this description of a picture so that it says nothing about how {categories} look: no colours, patterns, "
    "materials, shapes or parts. Keep every subject, every action, every position and the background. Answer with the "
    "description alone. {prompt}"
)
"""Instruction for a caption without looks, for a language model that was not trained on one grammar (ours)."""
TOLERANCE = 1e-6
"""By how much shares may miss 1."""


def _whole(shares: Mapping[str, float], name: str) -> None:
    if abs(sum(shares.values()) - 1) > TOLERANCE:
        raise ValueError(f"{name} should add up to 1, found {sum(shares.values()):.4g}")


class NumberShares(Params):
    """Shares of texts with two, three and four subjects; they add up to 1."""

    two: float = Field(ge=0, le=1)
    three: float = Field(ge=0, le=1)
    four: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _add_up(self) -> "NumberShares":
        _whole(self.model_dump(), "numbers")
        return self


class TaskShares(Params):
    """Shares of the task types among texts with two subjects; they add up to 1."""

    attribute: float = Field(ge=0, le=1)
    background: float = Field(ge=0, le=1)
    action: float = Field(ge=0, le=1)
    position: float = Field(ge=0, le=1)
    complex: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _add_up(self) -> "TaskShares":
        _whole(self.model_dump(), "tasks")
        return self


class TextsParams(Params):
    """What texts are about, and how the language model is asked."""

    num_texts: int = Field(ge=1)
    seed: int = Field(ge=0)
    """Seed of the draws and of the answers."""
    categories: list[str] = Field(min_length=4)
    """Nouns without articles; no two are equal."""
    numbers: NumberShares
    tasks: TaskShares
    sentences: Annotated[dict[Task, str], TakenFrom("task_sentences")]
    """What is added to the instruction for a prompt, by task type."""
    recaption: Literal["grammar", "model"]
    """Whether looks are taken out of a prompt by the grammar of the zoo's judge, or by asking the model again."""
    attempts: int = Field(ge=1)
    """Maximum number of answers to one instruction."""
    temperature: float = Field(ge=0)
    """Temperature of every answer; 0 decodes greedily."""
    max_tokens: int = Field(ge=1)
    """Longest answer in tokens."""
    records_per_shard: RecordsPerShard

    @model_validator(mode="after")
    def _categories_differ(self) -> "TextsParams":
        plain = [" ".join(category.casefold().split()) for category in self.categories]
        if len(set(plain)) < len(plain) or "" in plain:
            raise ValueError("categories should be different nouns")
        return self


@dataclass(frozen=True, kw_only=True)
class SyntheticText(TypedRecord):
    """Texts of one synthetic sample; index i is the same subject in all tuples."""

    KIND: ClassVar[str] = "text"
    STAGE: ClassVar[str] = "texts"

    task: str
    categories: tuple[str, ...]
    prompt: str
    """Describes the target, with looks."""
    caption: str
    """The prompt without looks: what training reads."""
    scenes: tuple[str, ...]
    """A prompt that shows each subject alone in another place."""
    attempts: int
    """Answers of the language model to all instructions together."""


@dataclass(frozen=True, kw_only=True)
class DrawnTarget(TypedRecord):
    """A target in which every subject was located."""

    KIND: ClassVar[str] = "drawn target"
    STAGE: ClassVar[str] = "targets"

    task: str
    categories: tuple[str, ...]
    caption: str
    scenes: tuple[str, ...]
    attempts: int
    """Images drawn until all subjects were located."""
    image: UInt8[np.ndarray, "height width 3"]
    crops: UInt8[np.ndarray, "subjects reference reference 3"]
    """Each subject on white, as a reference."""


@dataclass(frozen=True, kw_only=True)
class SyntheticRow(TypedRecord):
    """A target and, of each of its subjects, a reference in another place."""

    KIND: ClassVar[str] = "synthetic row"
    STAGE: ClassVar[str] = "synthetic"

    task: str
    categories: tuple[str, ...]
    caption: str
    similarities: tuple[float, ...]
    """Cosine of each redrawn subject and its crop."""
    cross: tuple[float, ...]
    """Cosines of redrawn subjects and other subjects' crops."""
    attempts: tuple[int, ...]
    """Images drawn of each subject."""
    image: UInt8[np.ndarray, "height width 3"]
    references: UInt8[np.ndarray, "subjects side side 3"]


@dataclass(frozen=True)
class Subjects:
    """What a text is to be about."""

    task: Task
    categories: tuple[str, ...]


def drawn_subjects(number: int, params: TextsParams) -> Subjects:
    """The task type and the categories of text ``number``, a pure function of it and of the seed."""
    rng = np.random.default_rng([params.seed, number])
    counts, tasks = params.numbers.model_dump(), params.tasks.model_dump()
    count = str(rng.choice(list(counts), p=list(counts.values())))
    task = str(rng.choice(list(tasks), p=list(tasks.values())))
    categories = rng.choice(params.categories, NUMBERS[count], replace=False)
    (chosen,) = [known for known in get_args(Task) if known == (task if count == "two" else count)]
    return Subjects(chosen, tuple(map(str, categories)))


def check_named(text: str, categories: Sequence[str]) -> None:
    """Check that a text names every category, as whole words in any case.

    Raises:
        RejectionError: ``no_text`` or ``category_not_named``.
    """
    if not text.strip():
        raise RejectionError("no_text", "the language model's answer is empty")
    for category in categories:
        if not names(text, category):
            raise RejectionError("category_not_named", f"{category!r} is not in {text!r}")


def names(text: str, category: str) -> bool:
    """Whether a text has the words of a category, singular or with an s."""
    return re.search(rf"(?<!\w){re.escape(category)}s?(?!\w)", text, re.IGNORECASE) is not None


def without_looks(prompt: str, categories: Sequence[str], task: Task) -> str:
    """The caption of a prompt of the form "two things in a park: on the left a ...; on the right a ...".

    Raises:
        RejectionError: ``no_caption`` if the prompt has another form.
    """
    head, colon, described = prompt.strip().rstrip(".").partition(": ")
    parts = described.split("; ")
    place = re.fullmatch(r"\w+ \w+ (\S.*)", head)
    owners = [[category for category in categories if names(part, category)] for part in parts]
    sides = [re.match(r"(.*?)\ban? ", part) for part in parts]
    each_once = all(len(own) == 1 for own in owners) and sorted(own[0] for own in owners) == sorted(categories)
    if not colon or place is None or not each_once or None in sides:
        raise RejectionError("no_caption", f"looks cannot be taken out of {prompt!r}")
    nouns = [with_article(owner) for (owner,) in owners]
    if task in WITH_SIDES:
        placed = [f"{side[1]}{noun}" for side, noun in zip(sides, nouns, strict=True) if side is not None]
        return f"{head}: {'; '.join(placed)}"
    return f"{', '.join(nouns[:-1])} and {nouns[-1]} {place[1]}"
