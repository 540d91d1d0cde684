"""Records in deterministic tar shards (WebDataset layout): the same records give the same bytes.

A member is called ``KEY.NAME.EXT``: ``json`` for the description, ``png`` for pictures and masks (batches are stacked
vertically), ``npy`` for numbers; everything is lossless. The standard library packs them, because WebDataset's own
package imports torch, which a data stage does without.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, count, islice
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mcpipe.records import Record

DESCRIPTION = "meta.json"


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


def write_shards(records: Iterable[Record], folder: Path, per_shard: int) -> int:
    """Pack records, in the order given, into ``folder/shard-00000.tar`` and so on; returns how many there were."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = iter(records)
    num_records = 0
    for number in count():
        first = next(stream, None)
        if first is None:
            break
        with tarfile.open(folder / f"shard-{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
            for record in chain([first], islice(stream, per_shard - 1)):
                _add_record(shard, record)
                num_records += 1
    return num_records


def read_shards(folder: Path) -> Iterator[Record]:
    """The records of a folder, in the order in which they were written; an empty folder has none.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a shard is damaged.

    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; has the stage that writes it run?")
    for shard in sorted(folder.glob("*.tar")):
        yield from _read_shard(shard)


def join_shards(*folders: Path) -> Iterator[tuple[Record, ...]]:
    """Records that share a key, one per folder, for the keys that all folders have; folders must be sorted by key.

    Raises:
        ValueError: a folder is not sorted by key.

    """
    streams = [_sorted_records(folder) for folder in folders]
    heads = [next(stream, None) for stream in streams]
    while all(head is not None for head in heads):
        present = [head for head in heads if head is not None]
        last = max(record.key for record in present)
        if all(record.key == last for record in present):
            yield tuple(present)
            last = ""
        heads = [
            next(stream, None) if not last or record.key < last else record
            for stream, record in zip(streams, present, strict=True)
        ]


def _sorted_records(folder: Path) -> Iterator[Record]:
    previous = ""
    for record in read_shards(folder):
        if record.key <= previous:
            raise ValueError(f"{folder}: record {record.key!r} comes after {previous!r}; shards must be sorted by key")
        previous = record.key
        yield record


def _add_record(shard: tarfile.TarFile, record: Record) -> None:
    if "." in record.key or "/" in record.key or not record.key:
        raise ValueError(f"record key {record.key!r} holds a dot or a slash; use records.record_key")
    members = {DESCRIPTION: json.dumps(record.meta, sort_keys=True, ensure_ascii=False).encode()}
    members |= {f"{name}.{kind}": data for name, (kind, data) in _encoded(record.arrays).items()}
    for name in sorted(members):
        info = tarfile.TarInfo(f"{record.key}.{name}")
        info.size = len(members[name])
        shard.addfile(info, io.BytesIO(members[name]))


def _encoded(arrays: dict[str, np.ndarray]) -> dict[str, tuple[str, bytes]]:
    return {name: _encode(array) for name, array in arrays.items()}


def _encode(array: np.ndarray) -> tuple[str, bytes]:
    """The extension and the bytes of one array; pictures and masks become PNG if they hold any pixel."""
    is_picture = array.dtype == np.uint8 and array.ndim >= 3 and array.shape[-1] == 3
    is_mask = array.dtype == np.bool_ and array.ndim >= 2
    if array.size and (is_picture or is_mask):
        return "png", _png(array, is_picture)
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return "npy", buffer.getvalue()


def _png(array: np.ndarray, is_picture: bool) -> bytes:
    """PNG of a batch stacked vertically; the batch shape travels in a text chunk."""
    batch = array.shape[:-3] if is_picture else array.shape[:-2]
    flat = array.reshape(-1, *array.shape[-2:]) if is_picture else array.reshape(-1, array.shape[-1])
    note = PngInfo()
    note.add_text("batch", json.dumps(batch))
    buffer = io.BytesIO()
    Image.fromarray(flat).save(buffer, "PNG", pnginfo=note, compress_level=4)
    return buffer.getvalue()


def _check_whole(file: Path) -> None:
    """A tar ends with two blocks of zeros; ``tarfile`` alone takes a cut one for a shorter one."""
    end = 2 * tarfile.BLOCKSIZE
    with file.open("rb") as shard:
        size = shard.seek(0, io.SEEK_END)
        shard.seek(max(size - end, 0))
        if size < end or any(shard.read()):
            raise EOFError("it ends too early")


def _read_shard(file: Path) -> Iterator[Record]:
    try:
        _check_whole(file)
        with tarfile.open(file, "r:") as shard:
            key, meta, arrays = "", {}, {}
            for info in shard:
                member = shard.extractfile(info)
                if member is None:
                    raise ValueError(f"{file}: {info.name} is no regular file")
                member_key, name, kind = info.name.split(".")
                if key and member_key != key:
                    yield Record(key, meta, arrays)
                    meta, arrays = {}, {}
                key = member_key
                if f"{name}.{kind}" == DESCRIPTION:
                    meta = json.loads(member.read())
                else:
                    arrays[name] = _decode(kind, member.read())
            if key:
                yield Record(key, meta, arrays)
    except (tarfile.TarError, json.JSONDecodeError, OSError, EOFError) as error:
        raise ValueError(f"{file} is damaged ({error}); delete it and run the stage that writes it again") from error


def _decode(kind: str, data: bytes) -> np.ndarray:
    if kind == "npy":
        return np.load(io.BytesIO(data), allow_pickle=False)
    with Image.open(io.BytesIO(data)) as picture:
        batch = tuple(json.loads(picture.info["batch"]))
        flat = np.asarray(picture)
    if flat.ndim == 3:
        return flat.reshape(*batch, -1, *flat.shape[-2:]) if batch else flat
    return flat.reshape(*batch, -1, flat.shape[-1]).astype(np.bool_) if batch else flat.astype(np.bool_)
