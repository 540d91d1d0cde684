"""Settings of the stages: typed, frozen, complete.

Every value stands in ``params.yaml`` once, so that the file is the whole truth: a model has no defaults, and neither a
missing nor an unknown key passes. A field that several stages share, or that would make a section too long, names the
place of its value with `TakenFrom`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mcpipe.core.errors import one_line


class Params(BaseModel):
    """Settings of a stage or of a part of a stage."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class TakenFrom:
    """Marks a field, as an annotation, whose value stands elsewhere in the settings file."""

    path: str
    """Dotted path, such as ``storage.records_per_shard``, or a section."""


RecordsPerShard = Annotated[int, Field(ge=1), TakenFrom("storage.records_per_shard")]
"""Records in one tar file, the same for every stage."""


class PeopleRange(Params):
    """Numbers of people from a smallest to a largest one."""

    min: int = Field(ge=1)
    max: int = Field(ge=1)

    @model_validator(mode="after")
    def _in_order(self) -> "PeopleRange":
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


PeopleCount = Annotated[int, Field(ge=1)] | PeopleRange
"""An exact number of people in an image, or a range of numbers."""
PipelinePeople = Annotated[PeopleCount, TakenFrom("subjects.num_people")]
"""The number of people in an image, the same in clips, samples and prompts."""
ShuffleReferences = Annotated[bool, TakenFrom("references.shuffle")]
"""Whether references change places from draw to draw, the same in training and benchmark."""


def people_numbers(count: PeopleCount) -> range:
    """The numbers of people that a setting allows."""
    return range(count, count + 1) if isinstance(count, int) else range(count.min, count.max + 1)


class _Loader(yaml.SafeLoader):
    """Reads ``1e-05``, which DVC writes for small numbers, as a number; YAML 1.1 takes it for a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> object:
    """The content of a YAML text, numbers as DVC writes them.

    Raises:
        YAMLError: the text is not valid YAML.
    """
    return yaml.load(text, _Loader)  # noqa: S506  a safe loader


P = TypeVar("P", bound=Params)


def read_params(file: Path, section: str, model: type[P]) -> P:
    """The settings of one section of a YAML file, checked against their model.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no YAML mapping, the section is absent, or a key is missing, unknown or out of range;
            the message names every such key.

    """
    if not file.is_file():
        raise FileNotFoundError(f"no settings file {file}; run from the root of the project")
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not valid YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} has no section {section!r}")  # noqa: TRY004  not a type that a caller passed
    return params_of(content, section, model, f"{file}: ")


def params_of(content: Mapping[str, object], section: str, model: type[P], source: str = "") -> P:
    """The settings of one section of a settings file's content, checked against their model.

    Raises:
        ValueError: the section or the place of a shared value is absent, or a key is missing, unknown or out of range;
            the message names every such key.
    """
    return check_params(section_content(content, section, model, source), model, section, source)


def section_content(
    content: Mapping[str, object], section: str, model: type[Params], source: str = ""
) -> dict[str, object]:
    """A section of a settings file's content, completed by the values that its model takes from other places.

    Raises:
        ValueError: the section or such a place is absent, or the section repeats a value that stands elsewhere.
    """
    own = content.get(section)
    if not isinstance(own, dict):
        raise ValueError(f"{source}there is no section {section!r}")  # noqa: TRY004  not a type that a caller passed
    complete = dict(own)
    for name, path in taken_from(model).items():
        if name in own:
            raise ValueError(f"{source}{section}.{name}: this value stands in {path} and nowhere else; remove it here")
        value: object = content
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            raise ValueError(f"{source}{path} is missing, which {section}.{name} needs")
        complete[name] = value
    return complete


def taken_from(model: type[Params]) -> dict[str, str]:
    """Fields of a model whose values stand elsewhere in the settings file, and where."""
    return {
        name: mark.path
        for name, field in model.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, TakenFrom)
    }


def check_params(content: object, model: type[P], section: str = "", source: str = "") -> P:
    """Settings checked against their model.

    Raises:
        ValueError: a key is missing, unknown or out of range; the message names every such key.

    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{source}{_complaints(section, error)}") from error


def _complaints(section: str, error: ValidationError) -> str:
    """All faults of a section in one line, each with its dotted key, the fault and the value."""
    return "; ".join(
        f"{'.'.join([*filter(None, [section]), *map(str, fault['loc'])])}: {fault['msg']} (got {fault['input']!r})"
        for fault in error.errors()
    )
