"""Public benchmarks from their published prompt files.

- DreamBench, several subjects: 30 pairs of objects and animals, 25 prompts each, 750 in all, as published with UNO
  (``dreambench_multiip.json``). The whole image is compared with each subject's reference; subjects are not located.
- DreamBench, single subjects: 30 objects and animals, 25 prompts each, as published with UNO
  (``dreambench_singleip.json``). The whole image is compared with all images of the subject that lie beside its
  reference (the protocol of DreamBooth), not with one of them (that of Kosmos-G); the two are not comparable.
- XVerseBench, several subjects (``XVerseBench_multi.json``): 210 prompts of two or three people, animals and objects.
  Subjects are compared in the same way; people also count for Face-Sim.

A prompt's key is its number in the file in four digits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError


@dataclass(frozen=True)
class Subject:
    """A person or thing that an image should show."""

    picture: str
    """Path of the reference, relative to the suite's folder of images."""
    words: str
    """Name of the subject in the suite."""
    is_person: bool


@dataclass(frozen=True)
class Task:
    """One prompt of a suite."""

    key: str
    prompt: str
    subjects: tuple[Subject, ...]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _DreamBenchEntry(_Entry):
    prompt: str = Field(min_length=1)
    image_paths: list[str] = Field(min_length=1)


class _Input(_Entry):
    image_path: str = Field(min_length=1)
    caption: str


class _Modulation(_Entry):
    type: Literal["adapter"]
    src_inputs: list[_Input] = Field(min_length=1)
    use_words: list[list[int | str]]
    """Words of the prompt that refer to an input: the input's number, the word in the prompt, the word in the caption,
    and the word's rank among equal words."""


class _XVerseEntry(_Entry):
    index: int = Field(ge=0)
    input_images: list[str]
    position_delta: list[int]
    prompt: str = Field(min_length=1)
    modulation: list[_Modulation] = Field(min_length=1)


E = TypeVar("E", bound=_Entry)


def dreambench(content: str) -> list[Task]:
    """The prompts of DreamBench in the format of UNO.

    Raises:
        ValueError: the text has another format.
    """
    return [
        Task(key_of(number), entry.prompt, tuple(Subject(path, _folder(path), False) for path in entry.image_paths))
        for number, entry in enumerate(_entries(content, TypeAdapter(list[_DreamBenchEntry])))
    ]


def dreambench_single(content: str) -> list[Task]:
    """The prompts of DreamBench for single subjects, in the format of UNO.

    Raises:
        ValueError: the text has another format, or a prompt has several references.
    """
    tasks = dreambench(content)
    for number, task in enumerate(tasks):
        if len(task.subjects) > 1:
            raise ValueError(f"{number}.image_paths: {len(task.subjects)} references; --suite dreambench has several")
    return tasks


def xversebench(content: str) -> list[Task]:
    """The prompts of XVerseBench.

    Raises:
        ValueError: the text has another format, or two prompts have the same number.
    """
    tasks = [
        Task(
            key_of(entry.index),
            entry.prompt,
            tuple(
                Subject(entry.image_path, entry.caption, _folder(entry.image_path) == "human")
                for modulation in entry.modulation
                for entry in modulation.src_inputs
            ),
        )
        for entry in _entries(content, TypeAdapter(list[_XVerseEntry]))
    ]
    if len({task.key for task in tasks}) < len(tasks):
        raise ValueError("two prompts have one index")
    return tasks


PUBLIC: dict[str, Callable[[str], list[Task]]] = {
    "dreambench": dreambench,
    "dreambench-single": dreambench_single,
    "xversebench": xversebench,
}
"""Parser of the prompt file of each suite."""
ALL_IMAGES = frozenset({"dreambench-single"})
"""Suites that compare an image with all images in the folder of a subject's reference."""


def key_of(number: int) -> str:
    """The key of a prompt by its number in the file."""
    return f"{number:04d}"


def _folder(path: str) -> str:
    """The folder of a reference, which names what the reference shows."""
    return PurePosixPath(path).parent.name


def _entries(content: str, kind: TypeAdapter[list[E]]) -> list[E]:
    try:
        entries = kind.validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{where}: {first['msg']} ({error.error_count()} faults in all)") from error
    if not entries:
        raise ValueError("the list is empty")
    return entries
