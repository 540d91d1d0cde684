"""Texts of synthetic training data (PSR, arXiv:2512.01236): drawn categories, checked prompts, captions without looks.

A text names two to four subjects by their categories, all things or all people. Of two subjects it has one of five task
types, of three and of four the type of that name. What the language model wrote is checked: every category has to be
named, and what the task type is about has to be said.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, get_args

import numpy as np
from jaxtyping import Float, UInt8

from mcpipe.core.records import RejectionError
from mcpipe.core.schemas.typed import TypedRecord, rest
from mcpipe.curate.object_rows import with_article
from mcpipe.curate.psr_settings import Kind, Task, TextsParams

NUMBERS = {"two": 2, "three": 3, "four": 4}
"""Number of subjects by its name."""
WITH_SIDES: tuple[Task, ...] = ("position", "complex", "three", "four")
"""Task types whose captions say where every subject is."""
WITH_CLOTHES: tuple[Task, ...] = ("attribute", "action", "position", "complex", "three", "four")
"""Task types whose captions say what people wear."""
WITH_ACTIONS: tuple[Task, ...] = ("action", "complex", "three", "four")
"""Task types whose captions say what people hold."""
DEMANDED: Mapping[Task, tuple[str, ...]] = {"attribute": ("worn",), "action": ("held",), "complex": ("worn", "held")}
"""What the prompt has to say of a subject by task type."""
WEARING, HOLDING = ", wearing ", " and holding "
"""What begins the clothes and the held object of a person in a prompt."""
RECAPTION = (
    "Rewrite this description of a picture so that it says nothing about how {categories} look: no colours, patterns, "
    "materials, shapes or parts. Keep every subject, every action, every position and the background. Answer with the "
    "description alone. {prompt}"
)
"""Instruction for a caption without looks, for a language model that was not trained on one grammar (ours)."""


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
    """A prompt that shows each subject alone in another place, with looks."""
    attempts: int
    """Answers of the language model to all instructions together."""
    edits: dict[str, str] = rest()
    """The edit of the target and the caption after it, or why there is none; empty if none was asked for."""


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
    edits: dict[str, str] = rest()
    """The edit, or why the image is as it was drawn; empty if none was asked for. Crops and embeddings are those
    before it, as references should not show it."""
    image: UInt8[np.ndarray, "height width 3"]
    crops: UInt8[np.ndarray, "subjects reference reference 3"]
    """Each subject on white, as a reference."""
    features: Float[np.ndarray, "subjects embedding"]
    """Embedding of each subject, of unit length."""


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
    origin: dict[str, str] = rest()
    """The edit of the target as in `DrawnTarget`, and which editing model redrew the subjects, if one did."""
    image: UInt8[np.ndarray, "height width 3"]
    references: UInt8[np.ndarray, "subjects side side 3"]


@dataclass(frozen=True)
class Subjects:
    """What a text is to be about."""

    task: Task
    categories: tuple[str, ...]


def drawn_subjects(number: int, kind: Kind, params: TextsParams) -> Subjects:
    """The task type and the categories of text ``number`` of a kind, a pure function of both and of the seed."""
    own = params.kinds[kind]
    rng = np.random.default_rng([params.seed, number])
    counts, tasks = params.numbers.model_dump(), own.tasks.model_dump()
    count = str(rng.choice(list(counts), p=list(counts.values())))
    task = str(rng.choice(list(tasks), p=list(tasks.values())))
    repeated = len(own.categories) < NUMBERS[count]
    categories = rng.choice(own.categories, NUMBERS[count], replace=repeated)
    (chosen,) = [known for known in get_args(Task) if known == (task if count == "two" else count)]
    return Subjects(chosen, tuple(map(str, categories)))


@dataclass(frozen=True)
class Described:
    """What a prompt says of one subject."""

    side: str
    """Where it stands, such as "on the left"."""
    text: str
    """The whole description, with its article."""
    category: str
    worn: str
    """Clothes of a person; empty if nothing is said of any."""
    held: str
    """What a person holds; empty if nothing is."""

    def without_looks(self, task: Task) -> str:
        """The category with its article, and what captions of a task type say of it beside looks."""
        clothes = f" wearing {self.worn}" if self.worn and task in WITH_CLOTHES else ""
        action = f"{' and' if clothes else ''} holding {self.held}" if self.held and task in WITH_ACTIONS else ""
        return f"{with_article(self.category)}{clothes}{action}"


def check_named(text: str, categories: Sequence[str]) -> None:
    """Check that a text names every category, as whole words in any case.

    Raises:
        RejectionError: ``no_text`` or ``category_not_named``.
    """
    if not text.strip():
        raise RejectionError("no_text", "the language model's answer is empty")
    for category, number in Counter(categories).items():
        if mentions(text, category) < number:
            raise RejectionError("category_not_named", f"{category!r} is not in {text!r}, or not {number} times")


def mentions(text: str, category: str) -> int:
    """How often a text has the words of a category, singular or with an s."""
    return len(re.findall(rf"(?<!\w){re.escape(category)}s?(?!\w)", text, re.IGNORECASE))


def described(prompt: str, categories: Sequence[str]) -> tuple[str, list[Described]]:
    """Head and subjects of a prompt of the form "two things in a park: on the left a ...; on the right a ...".

    Raises:
        RejectionError: ``no_caption`` if the prompt has another form.
    """
    head, colon, rest = prompt.strip().rstrip(".").partition(": ")
    parts = [re.fullmatch(r"(.*?)\b(an? .*)", part) for part in rest.split("; ")]
    subjects = [_described(part[1], part[2], categories) for part in parts if part is not None]
    named = Counter(subject.category for subject in subjects)
    complete = len(subjects) == len(parts) and named == Counter(categories)
    if not colon or not complete or re.fullmatch(r"\w+ \w+ \S.*", head) is None:
        raise RejectionError("no_caption", f"looks cannot be taken out of {prompt!r}")
    return head, subjects


def _described(side: str, text: str, categories: Sequence[str]) -> Described:
    plain, _, outfit = text.partition(WEARING)
    worn, _, held = outfit.partition(HOLDING)
    own = {category for category in categories if mentions(plain, category)}
    return Described(side.strip(), text, own.pop() if len(own) == 1 else "", worn, held)


def without_looks(prompt: str, categories: Sequence[str], task: Task) -> str:
    """The caption of a prompt by its task type.

    Raises:
        RejectionError: ``no_caption`` if the prompt has another form; ``task_not_said`` if it lacks what the task type
            is about.
    """
    head, subjects = described(prompt, categories)
    for part in DEMANDED.get(task, ()):
        said = [bool(getattr(subject, part)) for subject in subjects]
        if not (any(said) if part == "held" else all(said)):
            raise RejectionError("task_not_said", f"{prompt!r} says too little of what is {part}")
    nouns = [subject.without_looks(task) for subject in subjects]
    if task in WITH_SIDES:
        nouns = [f"{subject.side} {noun}".strip() for subject, noun in zip(subjects, nouns, strict=True)]
    elif not any(subject.worn for subject in subjects):
        place = head.split(" ", 2)[2]
        return f"{' and '.join(filter(None, [', '.join(nouns[:-1]), nouns[-1]]))} {place}"
    return f"{head}: {'; '.join(nouns)}"
