"""Rows of objects from a folder: references, what each shows, a target of all of them, and a prompt.

Three kinds of folders are read:

- MUSAR-Gen as published: Parquet files with the columns ``cond_img_0``, ``cond_img_1`` and so on, ``cond_prompt_0`` and
  so on, ``tgt_img`` and ``prompt``; images are bytes, or structures that hold them.
- A table ``*.csv`` or ``*.jsonl`` with the same columns, whose images are paths below the folder.
- DreamBooth's: a folder of images per subject. Each image is the reference of a row whose target is the next one.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mcpipe.core.records import record_key

TARGET, PROMPT = "tgt_img", "prompt"
IMAGE, PHRASE = "cond_img_{}", "cond_prompt_{}"
ORIGIN = ("redrawn_by", "edit", "edit_refused")
"""Columns of synthetic rows that say what an editing model did to their images, if there was one."""
TABLES = ("*.csv", "*.jsonl")
IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
"""Endings of the images of a subject."""
CLASSES = "prompts_and_classes.txt"
"""DreamBooth's list of subjects and their classes."""


@dataclass(frozen=True)
class ObjectRow:
    """A row as it was found; nothing in it is checked."""

    key: str
    prompt: str
    phrases: tuple[str, ...]
    """What each reference shows; empty where the row does not say."""
    references: tuple[bytes, ...]
    """Image files; empty where there is none."""
    target: bytes
    fault: str = ""
    """Why the row cannot be read; empty if it can."""
    origin: tuple[tuple[str, str], ...] = ()
    """Those columns in `ORIGIN` that say something."""


@dataclass(frozen=True)
class ParquetItem:
    """A row of a Parquet file."""

    file: Path
    name: str
    """Path of the file below the folder."""
    number: int

    @property
    def key(self) -> str:
        """Key derived from the file's name and the row's number."""
        return record_key(f"{self.name}/{self.number:06d}")

    def digest(self) -> str:
        """Digest of the file's content, and the row's number."""
        return f"{_file_digest(self.file)}/{self.number}"

    def inputs(self) -> tuple[ObjectRow]:
        """The row.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            group, first = _group_of(self.file, self.number)
            (values,) = _row_group(self.file, group).slice(self.number - first, 1).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{self.file} is damaged ({error}); fetch it again") from error
        images = {name: _bytes_of(value) for name, value in values.items() if _is_image_column(name)}
        return (_row(self.key, {**values, **images}),)


@dataclass(frozen=True)
class FileItem:
    """A row whose images are files below a folder."""

    folder: Path
    key: str
    values: tuple[tuple[str, str], ...]
    """Values by column; images as paths below the folder."""
    fault: str = ""

    def digest(self) -> str:
        """Digest of the values and of the files."""
        content = sha256(json.dumps([self.values, self.fault]).encode())
        for name, value in self.values:
            if _is_image_column(name):
                content.update(sha256(_file_bytes(self.folder, value)).digest())
        return content.hexdigest()

    def inputs(self) -> tuple[ObjectRow]:
        """The row."""
        values = {
            name: _file_bytes(self.folder, value) if _is_image_column(name) else value for name, value in self.values
        }
        return (_row(self.key, values, self.fault),)


ObjectItem = ParquetItem | FileItem


def object_items(folder: Path) -> list[ObjectItem]:
    """All rows below a folder, in the order of their keys.

    Raises:
        FileNotFoundError: the folder is missing or holds no rows.
        ValueError: a table or a Parquet file is damaged, lacks a column, or there are several tables.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of objects {folder}")
    files, tables = sorted(folder.rglob("*.parquet")), sorted(file for kind in TABLES for file in folder.glob(kind))
    if files and tables:
        raise ValueError(f"{folder} holds Parquet files and the table {tables[0].name}; leave one of the two")
    if len(tables) > 1:
        raise ValueError(
            f"{folder} holds several tables ({', '.join(file.name for file in tables)}); leave one of them"
        )
    if files:
        items = [item for file in files for item in _parquet_items(file, folder)]
    else:
        items = list(_table_items(tables[0]) if tables else _subject_items(folder))
    if not items:
        raise FileNotFoundError(f"no row of objects in {folder}: no *.parquet, no table, no folders of images")
    return sorted(items, key=lambda item: item.key)


def _parquet_items(file: Path, folder: Path) -> list[ObjectItem]:
    try:
        with pq.ParquetFile(file) as content:
            columns, number = content.schema_arrow.names, content.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{file} is damaged ({error}); fetch it again") from error
    _check_columns(file, columns)
    return [ParquetItem(file, file.relative_to(folder).as_posix(), row) for row in range(number)]


def _table_items(table: Path) -> Iterator[FileItem]:
    """The rows of a table; a line of JSON that cannot be read is a row with a fault."""
    lines = table.read_text(encoding="utf-8-sig").splitlines()
    if table.suffix == ".csv":
        rows = csv.DictReader(lines)
        _check_columns(table, rows.fieldnames or ())
        parsed: Iterable[tuple[Mapping[str, Any], str]] = [(row, "") for row in rows]
    else:
        parsed = [_json_row(line) for line in lines if line.strip()]
        _check_columns(table, {name for row, _ in parsed for name in row})
    for number, (row, fault) in enumerate(parsed):
        values = tuple((str(name), "" if value is None else str(value)) for name, value in row.items())
        yield FileItem(table.parent, record_key(f"{table.name}/{number:06d}"), values, fault)


def _json_row(line: str) -> tuple[Mapping[str, Any], str]:
    try:
        row = json.loads(line)
    except ValueError as error:
        return {}, f"no JSON: {error}"
    return (row, "") if isinstance(row, dict) else ({}, "no JSON object")


def _subject_items(folder: Path) -> Iterator[FileItem]:
    classes = dict(_classes(folder / CLASSES))
    for subject in sorted(place for place in folder.iterdir() if place.is_dir()):
        files = sorted(file for file in subject.iterdir() if file.suffix.lower() in IMAGES)
        phrase = classes.get(subject.name) or " ".join(re.findall(r"[^\W\d_]+", subject.name))
        for reference, target in zip(files, [*files[1:], *files[:1]], strict=True):
            values = {
                IMAGE.format(0): reference.relative_to(folder).as_posix(),
                PHRASE.format(0): phrase,
                TARGET: target.relative_to(folder).as_posix(),
                PROMPT: f"a photo of {with_article(phrase)}",
            }
            fault = "" if len(files) > 1 else "the subject has one image alone"
            yield FileItem(folder, record_key(values[IMAGE.format(0)]), tuple(values.items()), fault)


def _classes(file: Path) -> Iterator[tuple[str, str]]:
    """Class by subject in DreamBooth's list, whose lines of subjects are ``subject_name,class``."""
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        if re.fullmatch(r"[\w-]+,[\w -]+", line.strip()):
            subject, kind = line.strip().split(",")
            yield subject, kind.strip()


def with_article(phrase: str) -> str:
    """A phrase after "a" or "an", unless it has an article."""
    if re.match(r"(?:an?|the) ", phrase, re.IGNORECASE):
        return phrase
    return f"an {phrase}" if phrase[:1].lower() in "aeiou" else f"a {phrase}"


def _check_columns(file: Path, columns: Iterable[str]) -> None:
    known = set(columns)
    lacking = [name for name in (IMAGE.format(0), PHRASE.format(0), TARGET, PROMPT) if name not in known]
    if lacking:
        raise ValueError(f"{file} lacks the column {lacking[0]}; it has {', '.join(sorted(known)) or 'none'}")


def _row(key: str, values: Mapping[str, Any], fault: str = "") -> ObjectRow:
    """A row from its values; a reference without image and phrase is none."""
    references, phrases = [], []
    number = 0
    while IMAGE.format(number) in values:
        image, phrase = values[IMAGE.format(number)], str(values.get(PHRASE.format(number)) or "").strip()
        if image or phrase:
            references.append(image)
            phrases.append(phrase)
        number += 1
    prompt = str(values.get(PROMPT) or "").strip()
    origin = tuple((name, str(values[name])) for name in ORIGIN if values.get(name))
    return ObjectRow(key, prompt, tuple(phrases), tuple(references), values.get(TARGET) or b"", fault, origin)


def _is_image_column(name: str) -> bool:
    return name == TARGET or name.startswith("cond_img_")


def _bytes_of(value: object) -> bytes:
    """The image file in a cell: bytes, or a structure with bytes as published data sets have it."""
    content = value.get("bytes") if isinstance(value, dict) else value
    return content if isinstance(content, bytes) else b""


def _file_bytes(folder: Path, name: str) -> bytes:
    """A file below a folder; nothing if there is none, or if the path leads out of the folder."""
    file = (folder / name).resolve()
    if not name or not file.is_relative_to(folder.resolve()) or not file.is_file():
        return b""
    return file.read_bytes()


@lru_cache(maxsize=64)
def _file_digest(file: Path) -> str:
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _starts(file: Path) -> tuple[int, ...]:
    """Number of the first row of every row group."""
    with pq.ParquetFile(file) as content:
        sizes = [content.metadata.row_group(group).num_rows for group in range(content.metadata.num_row_groups)]
    return tuple(sum(sizes[:group]) for group in range(len(sizes)))


def _group_of(file: Path, number: int) -> tuple[int, int]:
    """The row group of a row, and the group's first row."""
    starts = _starts(file)
    group = max(group for group, start in enumerate(starts) if start <= number)
    return group, starts[group]


@lru_cache(maxsize=1)
def _row_group(file: Path, group: int) -> pa.Table:
    """A row group; rows come in order, so that one is enough."""
    with pq.ParquetFile(file) as content:
        return content.read_row_group(group)
