"""The base of all typed records, whose dataclass fields define the content of a stored record.

A field annotated with a jaxtyping array is an array of the record, any other one a value of its description. Reading
checks names, dtypes, ranks and sizes: an axis that appears in several fields has one size, which is not 0.
"""

import json
from dataclasses import dataclass, field, fields
from functools import cache
from types import NoneType
from typing import Any, ClassVar, Self, get_args, get_type_hints

import numpy as np
from jaxtyping import AbstractArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from mcpipe.core.records import JSON, Record, RecordError

REST = "rest"


def rest() -> Any:  # noqa: ANN401  a dataclass field has the type of its annotation
    """Return a dataclass field for a mapping whose entries are stored beside the named values, not below one name."""
    return field(metadata={REST: True})


@dataclass(frozen=True)
class RecordLayout:
    """How the fields of a typed record are stored."""

    arrays: dict[str, Any]
    """Array annotation by field."""
    values: dict[str, TypeAdapter]
    """Check by field of the description."""
    optional: frozenset[str]
    """Arrays that may be absent."""
    rest: str | None
    """The field that takes all other entries of the description."""


@dataclass(frozen=True, kw_only=True)
class TypedRecord:
    """A record that one stage passes to the next for one item."""

    KIND: ClassVar[str] = "record"
    """What error messages call it."""
    STAGE: ClassVar[str]
    """The stage that writes it."""

    key: str
    """Identifies the item in every stage."""

    @property
    def description(self) -> dict[str, JSON]:
        """Everything but the key and the arrays, by stored name."""
        layout = layout_of(type(self))
        described: dict[str, JSON] = {}
        for name in layout.values:
            value = getattr(self, name)
            described |= value if name == layout.rest else {name: list(value) if isinstance(value, tuple) else value}
        return described

    def to_record(self) -> Record:
        """Return the stored form."""
        arrays = {name: getattr(self, name) for name in layout_of(type(self)).arrays}
        return Record(self.key, self.description, {name: array for name, array in arrays.items() if array is not None})

    @classmethod
    def from_record(cls, record: Record) -> Self:
        """Read and check the stored form.

        Raises:
            RecordError: a field is absent, unknown, or of another dtype, rank or size.

        """
        layout = layout_of(cls)
        entries = dict(record.meta)
        named = {name: entries.pop(name) for name in layout.values if name in entries}
        if layout.rest:
            named[layout.rest], entries = entries, {}
        arrays = record.arrays.keys()
        if lacking := sorted((layout.arrays.keys() - layout.optional - arrays) | (layout.values.keys() - named.keys())):
            raise cls.error(record.key, f"lacks {', '.join(map(repr, lacking))}")
        if unknown := sorted(entries.keys() | (arrays - layout.arrays.keys())):
            raise cls.error(record.key, f"has unknown fields {', '.join(map(repr, unknown))}")
        values = {name: _value(cls, record.key, name, layout.values[name], entry) for name, entry in named.items()}
        _check_arrays(cls, record, layout)
        return cls(key=record.key, **values, **record.arrays)

    @classmethod
    def error(cls, key: str, complaint: str) -> RecordError:
        """Return an error that names the record and what to do."""
        return RecordError(f"{cls.KIND} {key}: {complaint}; run again what writes it, the stage {cls.STAGE}")


@cache
def layout_of(kind: type[TypedRecord]) -> RecordLayout:
    """How a typed record is stored, from the annotations of its class."""
    hints = get_type_hints(kind)
    arrays, values, optional, others = {}, {}, set(), None
    for part in fields(kind):
        choices = [choice for choice in get_args(hints[part.name]) if choice is not NoneType]
        hint = choices[0] if NoneType in get_args(hints[part.name]) else hints[part.name]
        if isinstance(hint, type) and issubclass(hint, AbstractArray):
            arrays[part.name] = hint
            optional |= {part.name} if hint is not hints[part.name] else set()
        elif part.name != "key":
            values[part.name] = TypeAdapter(hint, config=ConfigDict(strict=True))
            others = part.name if REST in part.metadata else others
    return RecordLayout(arrays, values, frozenset(optional), others)


def _value(kind: type[TypedRecord], key: str, name: str, check: TypeAdapter, entry: JSON) -> object:
    try:
        return check.validate_json(json.dumps(entry))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, (name, *fault["loc"])))
        raise kind.error(key, f"{place!r}: {fault['msg']}, found {fault['input']!r}") from error


def _check_arrays(kind: type[TypedRecord], record: Record, layout: RecordLayout) -> None:
    sizes: dict[str, tuple[int, str]] = {}
    for name, array in record.arrays.items():
        hint = layout.arrays[name]
        if not isinstance(array, hint):
            expected = f"{hint.dtype.__name__} array of shape ({hint.dim_str.strip()})"
            raise kind.error(record.key, f"{name!r} should be a {expected}, found {_described(array)}")
        for axis, size in zip(hint.dim_str.split(), array.shape, strict=True):
            other, first = sizes.setdefault(axis, (size, name))
            if size != other:
                raise kind.error(record.key, f"{name!r} has {size} {axis} where {first!r} has {other}")
            if not size:
                raise kind.error(record.key, f"{name!r} has no {axis}")


def _described(array: np.ndarray) -> str:
    return f"{array.dtype} of shape ({' '.join(map(str, array.shape))})"
