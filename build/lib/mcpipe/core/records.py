"""What is stored between stages: a key, a small JSON description and named arrays."""

from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np

LONGEST_KEY = 72
"""In bytes; leaves room in a shard for the name and the ending of every array."""
SHORTENED_KEY = 48

JSON = str | int | float | bool | None | list["JSON"] | dict[str, "JSON"]


@dataclass(frozen=True)
class Record:
    """One item on its way through the pipeline: a clip, a sample, a pair of faces, a picture."""

    key: str
    """Identifies the item in every stage; neither dots nor slashes (see `record_key`)."""

    meta: dict[str, JSON] = field(default_factory=dict)
    """Everything that is not an array."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    """uint8 pictures ``(..., H, W, 3)`` in RGB, bool masks ``(..., H, W)``, numbers of any shape."""

    def text(self, name: str) -> str:
        """A description that is a string.

        Raises:
            TypeError: it is absent or something else.

        """
        value = self.meta.get(name)
        if not isinstance(value, str):
            raise TypeError(f"record {self.key}: {name!r} should be a text, found {value!r}")
        return value

    def texts(self, name: str) -> list[str]:
        """A description that is a list of strings.

        Raises:
            TypeError: it is absent or something else.

        """
        value = self.meta.get(name)
        if not isinstance(value, list):
            raise TypeError(f"record {self.key}: {name!r} should be a list, found {value!r}")
        return [str(item) for item in value]


@dataclass(frozen=True)
class Rejection:
    """Why an item goes no further."""

    reason: str
    """A name to count by."""

    detail: str = ""
    """What was seen in this one."""

    scores: dict[str, JSON] = field(default_factory=dict)
    """The measurements behind the decision."""


def record_key(path: str) -> str:
    """A key made from a relative path: dots and separators replaced so that distinct paths stay distinct.

    A shard's format allows names of 100 bytes; the end of a longer path is replaced by a digest of the whole.
    """
    key = path.replace("%", "%25").replace(".", "%2E").replace("/", "%2F")
    encoded = key.encode(errors="surrogateescape")
    if len(encoded) <= LONGEST_KEY:
        return key
    return encoded[:SHORTENED_KEY].decode(errors="ignore") + f"%{sha256(encoded).hexdigest()[:16]}"
