"""Stored records (a key, a small JSON description and named arrays), and rejections of items.

Stages exchange the typed records of `mcpipe.core.schemas`; a `Record` is the form that all of them have in a shard.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol, Self

import numpy as np

LONGEST_KEY = 72
"""In bytes; leaves room in a shard for the name and the ending of every array."""
SHORTENED_KEY = 48

JSON = str | int | float | bool | None | list["JSON"] | dict[str, "JSON"]


@dataclass(frozen=True)
class Record:
    """One item on its way through the pipeline: a clip, a sample, a pair of faces, an image."""

    key: str
    """Identifies the item in every stage; neither dots nor slashes (see `record_key`)."""

    meta: dict[str, JSON] = field(default_factory=dict)
    """Everything that is not an array."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    """uint8 images ``(..., H, W, 3)`` in RGB, bool masks ``(..., H, W)``, numbers of any shape."""

    def to_record(self) -> "Record":
        """Return the record itself, as every `Storable` does."""
        return self

    @classmethod
    def from_record(cls, record: "Record") -> "Record":
        """Return the record itself, with any content."""
        return record


class Storable(Protocol):
    """What shards hold: a record, or a typed record of `mcpipe.core.schemas`."""

    @property
    def key(self) -> str:
        """Identifier of the item; see `Record.key`."""
        ...

    def to_record(self) -> Record:
        """Return the stored form."""
        ...

    @classmethod
    def from_record(cls, record: Record) -> Self:
        """Read the stored form.

        Raises:
            RecordError: a field is absent, unknown or of another kind.

        """
        ...


class RecordError(ValueError):
    """A stored record that is not what its reader expects; the message names record, field and remedy."""


@dataclass(frozen=True)
class Rejection:
    """Why an item goes no further, as it is stored and counted."""

    reason: str
    """A snake_case name to count by."""

    detail: str = ""
    """Description of the fault in this item."""

    scores: dict[str, JSON] = field(default_factory=dict)
    """Measurements behind the decision, by name."""


class RejectionError(ValueError):
    """Rejection of an item with a named reason; raised by decisions, counted by `mcpipe.execution`."""

    def __init__(self, reason: str, detail: str = "", scores: Mapping[str, JSON] | None = None) -> None:
        super().__init__(reason, detail, scores)
        self.rejection = Rejection(reason, detail, dict(scores or {}))

    @property
    def reason(self) -> str:
        """The name to count by."""
        return self.rejection.reason

    @property
    def detail(self) -> str:
        """Description of the fault in this item."""
        return self.rejection.detail

    def __str__(self) -> str:
        """Return the reason and the detail."""
        return f"{self.reason}: {self.detail}"


def record_key(path: str) -> str:
    """A key made from a relative path: dots and separators replaced so that distinct paths stay distinct.

    Bytes of a path that are no text (surrogates, as ``os.fsdecode`` gives them) are written as ``%`` and their value. A
    shard's format allows names of 100 bytes; the end of a longer path is replaced by a digest of the whole.
    """
    key = path.replace("%", "%25").replace(".", "%2E").replace("/", "%2F")
    key = "".join(f"%{ord(sign) - 0xDC00:02X}" if 0xDC80 <= ord(sign) <= 0xDCFF else sign for sign in key)
    encoded = key.encode()
    if len(encoded) <= LONGEST_KEY:
        return key
    return encoded[:SHORTENED_KEY].decode(errors="ignore") + f"%{sha256(encoded).hexdigest()[:16]}"
