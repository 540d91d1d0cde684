"""A pool of faces: every file of a folder, its key, and its attributes in the folder's table."""

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mcpipe.bench.face_table import face_attributes
from mcpipe.core.records import record_key
from mcpipe.curate.clips import file_names, path_of, title_of

TABLE = "faces.csv"
"""Optional table at the top of the folder (see `mcpipe.bench.face_table`), in any case."""


@dataclass(frozen=True)
class Portrait:
    """A file that should show one face."""

    file: Path
    name: str
    """Path in the folder, as text."""
    key: str
    """Key derived from the name without its ending; files that differ only in their ending share it."""
    attributes: dict[str, str] = field(default_factory=dict)
    """Attributes in the table; empty without an entry."""


def portraits(folder: Path) -> list[Portrait]:
    """All files below a folder except its table, in the order of keys; files that are not images are rejected later.

    Raises:
        FileNotFoundError: the folder is missing or holds no file.
        ValueError: there are several tables, or the table is damaged or names an image that is not there.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of faces {folder}")
    names = file_names(folder)
    tables = [name for name in names if name.casefold() == TABLE]
    if len(tables) > 1:
        raise ValueError(f"{folder} holds several tables ({', '.join(tables)}); leave one of them")
    images = [name for name in names if name not in tables]
    if not images:
        raise FileNotFoundError(f"no picture in {folder}")
    attributes = face_attributes(path_of(folder, tables[0]), images) if tables else {}
    pool = [Portrait(path_of(folder, name), title_of(name), key_of(name), attributes.get(name, {})) for name in images]
    return sorted(pool, key=lambda portrait: (portrait.key, portrait.name))


def key_of(name: str) -> str:
    """Key of a portrait by its path; a plus sign joins the two faces of a pair."""
    path = PurePosixPath(name)
    return record_key(str(path.with_name(path.stem))).replace("+", "%2B")
