"""Texts of synthetic training data by a language model: a prompt with all subjects, and one with each (PSR)."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from mcpipe.core.records import JSON, RejectionError
from mcpipe.core.report import Report
from mcpipe.core.shards import read_shards, whole_folder, write_shards
from mcpipe.curate.object_rows import with_article
from mcpipe.curate.psr_edits import (
    AFTER_EDIT,
    CAPTION,
    EDIT_FROM_PROMPT,
    EDITED,
    IN_WORDS,
    REFUSED,
    check_edit,
    edit_between,
    is_edited,
)
from mcpipe.curate.psr_prompts import PROMPT_FROM_CATEGORIES, REFERENCE_SCENE
from mcpipe.curate.psr_settings import Kind, TextsParams
from mcpipe.curate.psr_texts import (
    RECAPTION,
    Described,
    Subjects,
    SyntheticText,
    check_named,
    described,
    drawn_subjects,
    without_looks,
)
from mcpipe.execution.engine import decided
from mcpipe.execution.store import progress_of
from mcpipe.execution.workers import Decide
from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.protocols import Captioner

PACKAGES = ("transformers",)
T = TypeVar("T")


@dataclass(frozen=True)
class TextItem:
    """A text that is to be written."""

    number: int

    @property
    def key(self) -> str:
        """Its number with leading zeros, by which texts are sorted."""
        return f"{self.number:06d}"

    def digest(self) -> str:
        """Nothing but the number decides, beside the settings."""
        return self.key

    def inputs(self) -> tuple[int]:
        """The number."""
        return (self.number,)


@dataclass(frozen=True)
class TextItems:
    """All texts that are to be written."""

    number: int

    def __iter__(self) -> Iterator[TextItem]:
        """One after another."""
        return map(TextItem, range(self.number))


@dataclass(frozen=True)
class TextsWork:
    """What this stage does for every text."""

    judge: Path
    kind: Kind
    params: TextsParams
    ask: Callable[[Path], Captioner] = Qwen2_5VL

    def load(self) -> Decide:
        """Load the language model; the function that writes one text."""
        return partial(written_text, kind=self.kind, model=self.ask(self.judge), params=self.params)


def write_texts(work: TextsWork, out: Path) -> None:
    """Write the texts of one kind whose prompts name every category; `docs/psr.md` lists the reasons of the others.

    Raises:
        FileNotFoundError: the language model is missing.
        ValueError: it is damaged, or no text is usable.
    """
    report, params = Report("texts", PACKAGES), work.params
    with whole_folder(out) as folder:
        items = TextItems(params.kinds[work.kind].num_texts)
        if not write_shards(decided(items, work, report, progress_of(out)), folder, params.records_per_shard):
            raise ValueError(f"no text is usable: {report.summary()['dropped']}; see texts in params.yaml")
        report.facts = facts_about(read_shards(folder, SyntheticText), work)
        report.write(folder)


def facts_about(texts: Iterator[SyntheticText], work: TextsWork) -> dict[str, JSON]:
    """Numbers of texts asked for and written by task type and by number of subjects, and of answers."""
    number_of_texts = work.params.kinds[work.kind].num_texts
    asked = [drawn_subjects(number, work.kind, work.params) for number in range(number_of_texts)]
    kept = list(texts)
    facts: dict[str, JSON] = {
        "asked_by_task": counted([subjects.task for subjects in asked]),
        "by_task": counted([text.task for text in kept]),
        "by_number": counted([str(len(text.categories)) for text in kept]),
        "answers": sum(text.attempts for text in kept),
    }
    return facts | edit_facts([text.edits for text in kept])


def edit_facts(edits: Sequence[Mapping[str, str]]) -> dict[str, JSON]:
    """Numbers of records with an edit, and of those without one by reason; nothing if none was asked for."""
    if not any(edits):
        return {}
    refused = [each[REFUSED] for each in edits if REFUSED in each]
    return {"edited": sum(EDITED in each for each in edits), REFUSED: counted(refused)}


def counted(names: list[str]) -> dict[str, JSON]:
    """How often each name occurs, by name."""
    return dict(sorted(Counter(names).items()))


def written_text(number: int, kind: Kind, model: Captioner, params: TextsParams) -> SyntheticText:
    """The texts of one sample.

    Raises:
        RejectionError: ``no_text``, ``category_not_named``, ``no_caption`` or ``task_not_said`` of the last answer to
            an instruction.
    """
    subjects, key = drawn_subjects(number, kind, params), TextItem(number).key
    writer = Writer(model, params, seed_of(key, params.seed))
    prompt, caption = writer.prompt(subjects)
    if params.recaption == "grammar":
        _, parts = described(prompt, subjects.categories)
        categories = tuple(part.category for part in parts)
        scenes = [writer.same_scene(part) for part in parts]
    else:
        categories, scenes = subjects.categories, [writer.scene(category) for category in subjects.categories]
    edits = writer.edit(prompt, subjects) if is_edited(number, subjects.task, params.edits.share, params.seed) else {}
    return SyntheticText(
        key=key, task=subjects.task, categories=categories, prompt=prompt, caption=caption, scenes=tuple(scenes),
        attempts=writer.num_answers, edits=edits,
    )  # fmt: skip


class Writer:
    """A language model that is asked again while its answer is unusable."""

    def __init__(self, model: Captioner, params: TextsParams, seed: int) -> None:
        self._model, self._params, self._seed = model, params, seed
        self.num_answers = 0

    def prompt(self, subjects: Subjects) -> tuple[str, str]:
        """The prompt with all subjects, and its caption without looks."""
        return self._first_usable(self._instruction(subjects), partial(self._with_caption, subjects=subjects))

    def scene(self, category: str) -> str:
        """The prompt that shows one subject in another place."""
        return self._first_usable(
            REFERENCE_SCENE.format(phrase=with_article(category)), partial(named, categories=(category,))
        )

    def same_scene(self, subject: Described) -> str:
        """The place of an answer with the description of the subject that the target's prompt has."""

        def with_same_description(answer: str) -> str:
            head, (alone,) = described(named(answer, (subject.category,)), (subject.category,))
            return f"{head}: {alone.side} {subject.text}"

        return self._first_usable(REFERENCE_SCENE.format(phrase=subject.text), with_same_description)

    def edit(self, prompt: str, subjects: Subjects) -> dict[str, str]:
        """What is changed in the target and its caption then, or the reason why no answer is usable."""
        instruction = EDIT_FROM_PROMPT.format(
            categories=" and ".join(subjects.categories), prompt=prompt, what=IN_WORDS[subjects.task]
        )
        if self._params.recaption == "grammar":
            instruction = self._instruction(subjects)
        try:
            return self._first_usable(instruction, partial(self._with_edit, prompt=prompt, subjects=subjects))
        except RejectionError as error:
            return {REFUSED: error.reason}

    def _with_edit(self, answer: str, prompt: str, subjects: Subjects) -> dict[str, str]:
        if self._params.recaption == "grammar":
            return edit_between(prompt, named(answer, subjects.categories), subjects.categories, subjects.task)
        edit = check_edit(answer, subjects.categories)
        return {EDITED: edit, CAPTION: self._without_looks(AFTER_EDIT.format(prompt=prompt, edit=edit), subjects)}

    def _with_caption(self, answer: str, subjects: Subjects) -> tuple[str, str]:
        check_named(answer, subjects.categories)
        if self._params.recaption == "grammar":
            return answer, without_looks(answer, subjects.categories, subjects.task)
        return answer, self._without_looks(answer, subjects)

    def _instruction(self, subjects: Subjects) -> str:
        instruction = PROMPT_FROM_CATEGORIES.format(categories=", ".join(subjects.categories))
        return f"{instruction} {self._params.sentences.get(subjects.task, '')}".strip()

    def _without_looks(self, description: str, subjects: Subjects) -> str:
        instruction = RECAPTION.format(categories=" and ".join(subjects.categories), prompt=description)
        return named(self._answer(instruction), subjects.categories)

    def _first_usable(self, instruction: str, check: Callable[[str], T]) -> T:
        """The first answer that a check accepts, as the check returns it; the last one's rejection if none is."""
        rejection = None
        for _ in range(self._params.attempts):
            try:
                return check(self._answer(instruction))
            except RejectionError as error:
                rejection = error
        assert rejection is not None, "there is an attempt"
        raise rejection

    def _answer(self, instruction: str) -> str:
        self.num_answers += 1
        params = self._params
        return self._model.answer(
            [], instruction, temperature=params.temperature, seed=self._seed + self.num_answers,
            max_tokens=params.max_tokens,
        ).strip()  # fmt: skip


def named(answer: str, categories: tuple[str, ...]) -> str:
    """An answer that names every category.

    Raises:
        RejectionError: ``no_text`` or ``category_not_named``.
    """
    check_named(answer, categories)
    return answer


def seed_of(key: str, seed: int) -> int:
    """A seed that belongs to one sample."""
    return int.from_bytes(sha256(f"{seed}\n{key}".encode()).digest()[:4])
