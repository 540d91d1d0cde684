"""A digest of everything that decides how a piece of work turns out, but for the item: settings, models, code."""

import ast
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from hashlib import file_digest, sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from mcpipe.core.params import Params
from mcpipe.core.records import JSON

PACKING = "records_per_shard"
"""The one setting of a stage that does not touch its records."""
OWN = ("mcpipe", "stages")
"""Packages whose code is followed; of others the version counts."""


def fingerprint(work: object, packages: Iterable[str]) -> str:
    """Digest of a dataclass: its values, the content of its paths, its code and the versions of some packages."""
    modules = {module for value in _parts(work) if callable(value) for module in _closure(value.__module__)}
    told: JSON = {
        "values": _told(work),
        "code": {module: _digest(file) for module in modules if (file := _source(module))},
        "versions": {package: version(package) for package in packages},
    }
    return _digest_of(told)


def content_digest(content: object) -> str:
    """Digest of values alone: numbers, texts, lists and mappings of them, paths by what they hold."""
    return _digest_of(_told(content))


def _digest_of(told: JSON) -> str:
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _parts(work: object) -> Iterator[object]:
    """The class of a dataclass and the values of its fields."""
    if not is_dataclass(work):
        raise TypeError(f"work should be a dataclass, not {type(work).__name__}")
    yield type(work)
    yield from (getattr(work, field.name) for field in fields(work))


def _told(value: object) -> JSON:
    """A value as JSON; a path is told by what it holds."""
    if isinstance(value, Params):
        return value.model_dump(mode="json", exclude={PACKING})
    if isinstance(value, Path):
        files = sorted(file for file in value.rglob("*") if file.is_file()) if value.is_dir() else [value]
        return {file.relative_to(value).as_posix(): _digest(file) for file in files if file.is_file()}
    if is_dataclass(value) and not isinstance(value, type):
        return [_told(part) for part in _parts(value)]
    if callable(value):
        return f"{value.__module__}.{_name(value)}"
    if isinstance(value, dict):
        return {str(name): _told(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_told(part) for part in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{value!r} has no stable form; work should hold settings, paths and named functions")


def _name(function: Callable) -> str:
    return function.__qualname__


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()


def _closure(module: str) -> set[str]:
    """A module and the modules of this project that it imports, wherever the statements stand."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        file = None if current in seen else _source(current)
        if file is not None:
            seen.add(current)
            waiting += [name for name in _imports(file) if name.split(".")[0] in OWN]
    return seen


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _source(module: str) -> Path | None:
    """The Python file of a module; ``None`` if it has none or is no module."""
    if module in sys.modules:
        file = inspect.getsourcefile(sys.modules[module])
        return Path(file) if file else None
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None
