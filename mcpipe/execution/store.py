"""Verdicts on items, kept beside a stage's output, so that no run repeats what an earlier one finished.

An entry is one file, named by the item's key and content in a folder named by everything else that the verdict depends
on (see `mcpipe.execution.fingerprint`). It appears whole, by renaming, and carries its own digest.
"""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Collection
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from mcpipe.core.packing import Packed, add_members, pack, read_members
from mcpipe.core.records import Record, Rejection

PROGRESS = ".progress"
"""Folder beside a stage's output; no part of it."""
PROGRESS_VARIABLE = "MCPIPE_PROGRESS"
"""Environment variable that names a folder to use instead, for outputs whose own folder is deleted when a run ends."""
DIGEST_BYTES = 32


def progress_of(out: Path) -> Path:
    """Where the verdicts of the stage that writes ``out`` are kept."""
    folder = os.environ.get(PROGRESS_VARIABLE)
    return Path(folder) / out.parent.name / out.name if folder else out.parent / PROGRESS / out.name


@dataclass(frozen=True)
class Store:
    """The verdicts of one stage under one fingerprint."""

    folder: Path

    def place(self, key: str, digest: str) -> Path:
        """Where the verdict on an item is kept."""
        return self.folder / sha256(f"{key}\n{digest}".encode(errors="surrogateescape")).hexdigest()

    def prune(self, used: Collection[Path]) -> None:
        """Delete what the stage keeps except for the given verdicts."""
        used_names = {place.name for place in used}
        for other in self.folder.parent.iterdir():
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)
        for file in self.folder.iterdir():
            if file.name not in used_names:
                file.unlink(missing_ok=True)


def save(place: Path, verdict: Record | Rejection) -> None:
    """Keep a verdict.

    Raises:
        OSError: the disk is full or the place cannot be written.

    """
    if isinstance(verdict, Rejection):
        body = json.dumps(asdict(verdict)).encode()
    else:
        packed = pack(verdict)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8") as archive:
            add_members(archive, packed)
        body = json.dumps(packed.key).encode() + b"\n" + buffer.getvalue()
    content = (b"-" if isinstance(verdict, Rejection) else b"+") + body
    unfinished = place.with_name(f".{place.name}.{os.getpid()}")
    unfinished.write_bytes(sha256(content).digest() + content)
    unfinished.replace(place)


def load(place: Path) -> Packed | Rejection | None:
    """The verdict stored at a place; ``None`` if it is missing or damaged."""
    content = _content(place)
    if content is None:
        return None
    if content[:1] == b"-":
        return Rejection(**json.loads(content[1:]))
    key, archive = content[1:].split(b"\n", 1)
    return read_members(json.loads(key), archive)


def holds(place: Path) -> bool:
    """Whether a whole verdict is kept at a place."""
    return _content(place) is not None


def _content(place: Path) -> bytes | None:
    try:
        stored = place.read_bytes()
    except FileNotFoundError:
        return None
    digest, content = stored[:DIGEST_BYTES], stored[DIGEST_BYTES:]
    return content if sha256(content).digest() == digest else None
