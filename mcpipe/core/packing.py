"""One record as bytes: what stands between a record in memory and its place in a shard.

A member is called ``KEY.NAME.EXT``: ``json`` for the description, ``png`` for images and masks (batches are stacked
vertically), ``npy`` for numbers; everything is lossless. The standard library packs them, because WebDataset's own
package imports torch, which a data stage does without.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mcpipe.core.records import JSON, Record

DESCRIPTION = "meta.json"


@dataclass(frozen=True)
class Packed:
    """A record as it lies in a shard: the bytes of its members by their names without the key."""

    key: str
    members: dict[str, bytes]

    @property
    def meta(self) -> dict[str, JSON]:
        """Everything that is not an array."""
        return json.loads(self.members[DESCRIPTION])

    def with_meta(self, meta: dict[str, JSON]) -> "Packed":
        """The same arrays with another description."""
        return Packed(self.key, self.members | {DESCRIPTION: _described(meta)})

    def record(self) -> Record:
        """The record itself, decoded."""
        arrays = {}
        for member, data in self.members.items():
            if member != DESCRIPTION:
                name, kind = member.split(".")
                arrays[name] = _decode(kind, data)
        return Record(self.key, self.meta, arrays)


def pack(record: Record) -> Packed:
    """Encode a record.

    Raises:
        ValueError: its key would break the layout.

    """
    if "." in record.key or "/" in record.key or not record.key:
        raise ValueError(f"record key {record.key!r} holds a dot or a slash; use records.record_key")
    members = {f"{name}.{kind}": data for name, (kind, data) in _encoded(record.arrays).items()}
    return Packed(record.key, members | {DESCRIPTION: _described(record.meta)})


def add_members(archive: tarfile.TarFile, packed: Packed) -> None:
    """Append a record to an archive, members in the order of their names."""
    for name in sorted(packed.members):
        info = tarfile.TarInfo(f"{packed.key}.{name}")
        info.size = len(packed.members[name])
        archive.addfile(info, io.BytesIO(packed.members[name]))


def read_members(key: str, archive: bytes) -> Packed:
    """The record whose members an archive, or a part of one, holds.

    Raises:
        tarfile.TarError: it is damaged.

    """
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:", encoding="utf-8") as members:
        return Packed(key, dict(_named(members)))


def _named(members: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for info in members:
        member = members.extractfile(info)
        if member is None:
            raise tarfile.ReadError(f"{info.name} is no regular file")
        yield info.name.split(".", 1)[1], member.read()


def _described(meta: dict[str, JSON]) -> bytes:
    return json.dumps(meta, sort_keys=True, ensure_ascii=False).encode()


def _encoded(arrays: dict[str, np.ndarray]) -> dict[str, tuple[str, bytes]]:
    return {name: _encode(array) for name, array in arrays.items()}


def _encode(array: np.ndarray) -> tuple[str, bytes]:
    """The extension and the bytes of one array; images and masks become PNG if they hold any pixel."""
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


def _decode(kind: str, data: bytes) -> np.ndarray:
    if kind == "npy":
        return np.load(io.BytesIO(data), allow_pickle=False)
    with Image.open(io.BytesIO(data)) as picture:
        batch = tuple(json.loads(picture.info["batch"]))
        flat = np.asarray(picture)
    if flat.ndim == 3:
        return flat.reshape(*batch, -1, *flat.shape[-2:]) if batch else flat
    return flat.reshape(*batch, -1, flat.shape[-1]).astype(np.bool_) if batch else flat.astype(np.bool_)
