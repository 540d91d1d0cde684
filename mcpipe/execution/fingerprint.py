"""A digest of everything that decides how a piece of work turns out, but for the item: settings, models, code."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from hashlib import file_digest, sha256
from importlib.metadata import version
from pathlib import Path

from mcpipe.core.imports import closure, module_file
from mcpipe.core.params import Params
from mcpipe.core.records import JSON

PACKING = "records_per_shard"
"""The one setting of a stage that does not touch its records."""
OWN = ("mcpipe", "stages")
"""Packages whose code is followed; of others the version counts."""


def fingerprint(work: object, packages: Iterable[str]) -> str:
    """Digest of a dataclass: its values, the content of its paths, its code and the versions of some packages."""
    modules = {module for value in _parts(work) if callable(value) for module in closure(value.__module__, OWN)}
    content: JSON = {
        "values": _stable_form(work),
        "code": {module: _digest(file) for module in modules if (file := module_file(module))},
        "versions": {package: version(package) for package in packages},
    }
    return _digest_of(content)


def content_digest(content: object) -> str:
    """Digest of values alone: numbers, texts, lists and mappings of them, paths by what they hold."""
    return _digest_of(_stable_form(content))


def _digest_of(content: JSON) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _parts(work: object) -> Iterator[object]:
    """The class of a dataclass and the values of its fields."""
    if not is_dataclass(work):
        raise TypeError(f"work should be a dataclass, not {type(work).__name__}")
    yield type(work)
    yield from (getattr(work, field.name) for field in fields(work))


def _stable_form(value: object) -> JSON:
    """A value as JSON; a path is replaced by digests of its content."""
    if isinstance(value, Params):
        return value.model_dump(mode="json", exclude={PACKING})
    if isinstance(value, Path):
        files = sorted(file for file in value.rglob("*") if file.is_file()) if value.is_dir() else [value]
        return {file.relative_to(value).as_posix(): _digest(file) for file in files if file.is_file()}
    if is_dataclass(value) and not isinstance(value, type):
        return [_stable_form(part) for part in _parts(value)]
    if callable(value):
        return f"{value.__module__}.{_name(value)}"
    if isinstance(value, dict):
        return {str(name): _stable_form(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_stable_form(part) for part in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{value!r} has no stable form; work should hold settings, paths and named functions")


def _name(function: Callable) -> str:
    return function.__qualname__


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()
