"""Attributes of a pool of faces, from a table written by a spreadsheet or by hand.

The table has a header with a column ``file`` and a row per image. Fields are separated by commas, semicolons, tabs or
bars, whichever yields that column; blanks around them are ignored. The text is UTF-8 or UTF-16, with or without a byte
order mark, or else Windows-1252. Ambiguous content is rejected with its row, counted as in a spreadsheet.
"""

import codecs
import csv
import io
import logging
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from unicodedata import normalize

logger = logging.getLogger(__name__)

FILE = "file"
"""Column of the image's path in the folder of the table; upper and lower case are equal."""
SEPARATORS = ",;\t|"
MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Encoding by byte order mark; a longer mark comes before its own prefix."""
LINE_BREAK = re.compile(r"\r\n|\r|\n")

Rows = list[tuple[int, list[str]]]
"""Fields of every row that is not blank, with the row's number."""


def face_attributes(table: Path, images: Collection[str]) -> dict[str, dict[str, str]]:
    """Attributes by image; ``images`` are the paths in the table's folder.

    The table may write an image with another case of its ending, another Unicode normal form, or backslashes.

    Raises:
        ValueError: the table cannot be decoded, is empty or lacks the column ``file``, or a row has other fields than
            the header, names no image, or contradicts another one.
        OSError: the table cannot be opened.
    """
    (number, header), *rows = _rows(table, _text(table))
    columns = _columns(table, number, header)
    alike: dict[str, list[str]] = {}
    for image in images:
        alike.setdefault(_plain(image), []).append(image)
    places: dict[str, int] = {}
    attributes: dict[str, dict[str, str]] = {}
    for number, fields in rows:
        row = _row(table, number, columns, fields)
        name = row.pop(FILE)
        candidates = [name] if name in images else alike.get(_plain(name), [])
        if len(candidates) != 1:
            fault = (
                f"there is no image {name!r} in {table.parent}"
                if not candidates
                else f"{name!r} is any of {candidates}"
            )
            raise ValueError(f"{table}, row {number}: {fault}; mend the name or remove the row")
        image = candidates[0]
        if attributes.setdefault(image, row) != row:
            raise ValueError(f"{table}, row {number}: says something else of {image} than row {places[image]}")
        places.setdefault(image, number)
    return attributes


def _plain(name: str) -> str:
    """A path without differences between systems: separators, normal form, case of the ending."""
    path = PurePosixPath(normalize("NFC", name.replace("\\", "/")))
    return str(path.with_name(path.stem + path.suffix.lower())) if path.name else ""


def _columns(table: Path, number: int, header: list[str]) -> list[str]:
    """Column names up to the last named column, with `FILE` in its own spelling; unnamed columns have empty names.

    Raises:
        ValueError: two columns have one name.
    """
    last = max(i for i, name in enumerate(header) if name)
    columns = [FILE if name.casefold() == FILE else name for name in header[: last + 1]]
    twice = {name for name in columns if name and columns.count(name) > 1}
    if twice:
        raise ValueError(f"{table}, row {number}: two columns are called {min(twice)}")
    return columns


def _row(table: Path, number: int, columns: list[str], fields: list[str]) -> dict[str, str]:
    """Fields by column; empty fields beyond the last column, which spreadsheets leave, are ignored.

    Raises:
        ValueError: there are more or fewer fields than columns, or one belongs to no named column.
    """
    extra = fields[len(columns) :]
    if len(fields) < len(columns) or any(extra):
        raise ValueError(f"{table}, row {number}: {len(fields)} fields, but the header has {len(columns)}")
    row = dict(zip(columns, fields, strict=False))
    if any(field and not column for column, field in zip(columns, fields, strict=False)):
        raise ValueError(f"{table}, row {number}: a field stands in a column without a name")
    row.pop("", None)
    return row


def _rows(table: Path, text: str) -> Rows:
    """The header, which has a column `FILE`, and all rows.

    Raises:
        ValueError: there is no such header, or the quotes do not match.
    """
    start = 0
    declared = re.match(r"(?i)\"?sep=(.)\"?[ \t]*(\r\n|\r|\n)", text)
    separators = SEPARATORS
    if declared:  # spreadsheets write the separator into the first line
        separators, text, start = declared[1], text[declared.end() :], 1
    for separator in separators:
        rows = _split(table, text, separator, start, only_first=True)
        if any(name.casefold() == FILE for _, fields in rows for name in fields):
            return _split(table, text, separator, start)
    raise ValueError(
        f"{table}, row {rows[0][0]}: the header has no column called {FILE}" if rows else f"{table} is empty"
    )


def _split(table: Path, text: str, separator: str, start: int, *, only_first: bool = False) -> Rows:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    rows: Rows = []
    number = start
    try:
        for number, fields in enumerate(reader, start + 1):
            stripped = [field.strip() for field in fields]
            if any(stripped):
                rows.append((number, stripped))
                if only_first:
                    break
    except csv.Error as error:
        raise ValueError(f"{table}, row {number + 1}: {error}") from error
    return rows


def _text(table: Path) -> str:
    """The content as text.

    Raises:
        ValueError: the encoding is unknown, or the text holds NUL characters.
    """
    content = table.read_bytes()
    mark = next((mark for mark in MARKS if content.startswith(mark)), b"")
    encoding = MARKS.get(mark) or _unmarked_encoding(content)
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        row = _row_number(content[len(mark) :][: error.start].decode(encoding, errors="ignore"))
        raise ValueError(f"{table}, row {row}: no {encoding} text ({error.reason}); save it as UTF-8") from error
    if encoding == "cp1252":
        logger.warning("%s is not UTF-8 and is read as Windows-1252; save it as UTF-8 to be sure", table)
    if "\0" in text:
        raise ValueError(f"{table}, row {_row_number(text[: text.index(chr(0))])}: a NUL character; save it as UTF-8")
    return text


def _unmarked_encoding(content: bytes) -> str:
    """Encoding of a text without a byte order mark; it is UTF-16 if every second byte is 0, as in Latin text."""
    if content[1:2] == b"\0" or content[:1] == b"\0":
        return "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    try:
        content.decode()
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _row_number(before: str) -> int:
    return len(LINE_BREAK.findall(before)) + 1
