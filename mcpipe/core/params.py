"""Settings of the stages: typed, frozen, complete.

Every value stands in ``params.yaml``, so that the file is the whole truth: a model has no defaults, and neither a
missing nor an unknown key passes.
"""

import re
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mcpipe.core.errors import one_line


class Params(BaseModel):
    """Settings of one stage or of one part of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Loader(yaml.SafeLoader):
    """Reads ``1e-05``, which DVC writes for small numbers, as a number; YAML 1.1 takes it for a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> object:
    """The content of a YAML text, numbers as DVC writes them.

    Raises:
        YAMLError: it is none.
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
        content = parse_yaml(file.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {one_line(error)}") from error
    if not isinstance(content, dict) or section not in content:
        raise ValueError(f"{file} has no section {section!r}")
    return check_params(content[section], model, section, f"{file}: ")


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
