"""Clip files of a folder: their paths, keys and titles."""

import os
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from mcpipe.core.records import record_key


@dataclass(frozen=True)
class ClipFile:
    """A video file, given by a folder and a path in it."""

    folder: Path
    name: str

    @property
    def file(self) -> Path:
        """Path of the file."""
        return path_of(self.folder, self.name)

    @property
    def title(self) -> str:
        """The name as printable text."""
        return title_of(self.name)

    @property
    def key(self) -> str:
        """Key derived from the name; names that differ in any byte have different keys."""
        return record_key(self.name)

    def is_file(self) -> bool:
        """Whether the path is a regular file; other kinds of files may have no end."""
        return self.file.is_file()

    def digest(self) -> str:
        """Digest of the file's bytes, or the fault that keeps them from being read."""
        if not self.is_file():
            return "not a file"
        try:
            with self.file.open("rb") as content:
                return file_digest(content, "sha256").hexdigest()
        except OSError as error:
            return str(error.strerror)

    def inputs(self) -> tuple[Path, str]:
        """The file that the work opens, and its name."""
        return self.file, self.name


def title_of(name: str) -> str:
    """A file name as printable text; different names have different titles.

    A byte that cannot be decoded becomes a backslash, an x and its hexadecimal value; a backslash is doubled.
    """
    return name.replace("\\", "\\\\").encode(errors="surrogateescape").decode(errors="backslashreplace")


def clip_files(clips: Path) -> list[ClipFile]:
    """All files below a folder, searched recursively; files that are not videos are rejected by name later.

    Raises:
        FileNotFoundError: the folder is missing or holds no file.

    """
    if not clips.is_dir():
        raise FileNotFoundError(f"no folder of clips {clips}")
    files = [ClipFile(clips, name) for name in file_names(clips)]
    if not files:
        raise FileNotFoundError(f"no clip in {clips}")
    return files


def file_names(folder: Path) -> list[str]:
    """Sorted relative paths of all files below a folder, for `path_of`.

    Names are decoded as UTF-8 in every locale; bytes that are not UTF-8 become surrogates. Links to folders are
    followed; each folder is visited once, under its own name rather than the name of a link.
    """
    names: list[bytes] = []
    visited: set[Path] = set()
    links = [folder]
    while links:
        later: list[Path] = []
        for link in sorted(links):
            for place, folders, files in os.walk(link):
                here = Path(place)
                if here.resolve() in visited:
                    folders.clear()
                    continue
                visited.add(here.resolve())
                later += [here / name for name in folders if (here / name).is_symlink()]
                names += [os.fsencode((here / name).relative_to(folder).as_posix()) for name in files]
        links = later
    return sorted(name.decode(errors="surrogateescape") for name in names)


def path_of(folder: Path, name: str) -> Path:
    """Path of the file to which `file_names` gives a name."""
    return folder / os.fsdecode(name.encode(errors="surrogateescape"))
