"""Records in deterministic tar shards (WebDataset layout): the same records give the same bytes."""

import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, count, groupby, islice
from pathlib import Path
from typing import TypeVar

from mcpipe.core.packing import Packed, add_members, pack, read_members
from mcpipe.core.records import Record, RecordError, Storable

Place = tuple[Path, int, int]
"""Where a record lies: its shard, the first byte, and the one after the last."""
Source = tuple[Path, type[Storable]]
"""A folder of shards, and the type of its records."""
T = TypeVar("T", bound=Storable)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder that appears whole or not at all: it is built beside its place and renamed when the block ends.

    Raises:
        OSError: the disk is full or the place cannot be written; nothing is left behind.

    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@dataclass(frozen=True)
class StoredItem:
    """Where the records of one key lie, one per folder; small, so that it can travel to where the work is done."""

    key: str
    places: tuple[Place, ...]
    kinds: tuple[type[Storable], ...]
    """What each of them is."""

    @property
    def shard(self) -> Path:
        """The file of the first record."""
        return self.places[0][0]

    def read(self, kind: type[T], number: int = 0) -> T:
        """The record of a folder, decoded and checked.

        Raises:
            ValueError: the shard is damaged, or the record is of another kind; the message names the shard.

        """
        place = self.places[number]
        try:
            return kind.from_record(_read(self.key, place).record())
        except RecordError as error:
            raise RecordError(f"{place[0]}: {error}") from error
        except (json.JSONDecodeError, OSError, EOFError) as error:
            raise _damaged(place[0], error) from error

    def inputs(self) -> list[Storable]:
        """The records, decoded and checked, in the order of the folders.

        Raises:
            ValueError: a shard is damaged, or a record is of another kind.

        """
        return [self.read(kind, number) for number, kind in enumerate(self.kinds)]

    def digest(self) -> str:
        """Digest of the stored content."""
        content = sha256()
        for place in self.places:
            content.update(_bytes(place))
        return content.hexdigest()


class StoredItems:
    """The keys that all folders have, in order; folders must be sorted by key."""

    def __init__(self, *sources: Source) -> None:
        self._folders, self._kinds = zip(*sources, strict=True)

    def __len__(self) -> int:
        """How many there are."""
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[StoredItem]:
        """Every key with the places of its records.

        Raises:
            FileNotFoundError: a folder is missing.
            ValueError: a shard is damaged, or a folder is not sorted by key.

        """
        for places in _joined([_sorted_places(folder) for folder in self._folders]):
            yield StoredItem(places[0][0], tuple(place for _, place in places), self._kinds)


def write_shards(records: Iterable[Storable | Packed], folder: Path, per_shard: int) -> int:
    """Pack records in their order into ``folder/shard-00000.tar`` and so on; returns their number."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = iter(records)
    num_records = 0
    for number in count():
        first = next(stream, None)
        if first is None:
            break
        with tarfile.open(
            folder / f"shard-{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT, encoding="utf-8"
        ) as shard:
            for record in chain([first], islice(stream, per_shard - 1)):
                add_members(shard, record if isinstance(record, Packed) else pack(record.to_record()))
                num_records += 1
    return num_records


def read_shards(folder: Path, kind: type[T] = Record) -> Iterator[T]:
    """The records of a folder, checked, in the order in which they were written; an empty folder has none.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a shard is damaged, or a record is of another kind.

    """
    for key, place in _places(folder):
        yield StoredItem(key, (place,), (kind,)).read(kind)


def read_packed(folder: Path) -> Iterator[Packed]:
    """The records of a folder as they are stored, in that order.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a shard is damaged.

    """
    for key, place in _places(folder):
        yield _read(key, place)


def _joined(streams: list[Iterator[tuple[str, Place]]]) -> Iterator[list[tuple[str, Place]]]:
    """The heads of sorted streams wherever all of them have one key."""
    heads = [next(stream, None) for stream in streams]
    while all(head is not None for head in heads):
        present = [head for head in heads if head is not None]
        last = max(key for key, _ in present)
        if all(key == last for key, _ in present):
            yield present
            last = ""
        heads = [
            next(stream, None) if not last or head[0] < last else head
            for stream, head in zip(streams, present, strict=True)
        ]


def _sorted_places(folder: Path) -> Iterator[tuple[str, Place]]:
    previous = ""
    for key, place in _places(folder):
        if key <= previous:
            raise ValueError(f"{folder}: record {key!r} comes after {previous!r}; shards must be sorted by key")
        previous = key
        yield key, place


def _places(folder: Path) -> Iterator[tuple[str, Place]]:
    """Every record of a folder with its place."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; has the stage that writes it run?")
    for file in sorted(folder.glob("*.tar")):
        try:
            _check_complete(file)
            with tarfile.open(file, "r:", encoding="utf-8") as shard:
                members = [(info.name.split(".")[0], info.offset, _end(info)) for info in shard]
        except (tarfile.TarError, OSError, EOFError) as error:
            raise _damaged(file, error) from error
        for key, group in groupby(members, key=lambda member: member[0]):
            bounds = [(start, stop) for _, start, stop in group]
            yield key, (file, bounds[0][0], bounds[-1][1])


def _end(member: tarfile.TarInfo) -> int:
    """The first byte after a member, which fills whole blocks."""
    return member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _read(key: str, place: Place) -> Packed:
    try:
        return read_members(key, _bytes(place))
    except (tarfile.TarError, OSError) as error:
        raise _damaged(place[0], error) from error


def _bytes(place: Place) -> bytes:
    file, start, stop = place
    with file.open("rb") as shard:
        shard.seek(start)
        return shard.read(stop - start)


def _damaged(file: Path, error: Exception) -> ValueError:
    return ValueError(f"{file} is damaged ({error}); delete it and run the stage that writes it again")


def _check_complete(file: Path) -> None:
    """A tar ends with two blocks of zeros; ``tarfile`` alone takes a cut one for a shorter one."""
    end = 2 * tarfile.BLOCKSIZE
    with file.open("rb") as shard:
        size = shard.seek(0, io.SEEK_END)
        shard.seek(max(size - end, 0))
        if size < end or any(shard.read()):
            raise EOFError("it ends too early")
