"""Clip files of a folder: which files there are, under which keys, and which of them are videos by name."""

import os
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from mcpipe.core.records import record_key


@dataclass(frozen=True)
class ClipFile:
    """A video file by its folder and its path in it."""

    folder: Path
    name: str

    @property
    def file(self) -> Path:
        """The file itself."""
        return path_of(self.folder, self.name)

    @property
    def title(self) -> str:
        """The name as text for people."""
        return title_of(self.name)

    @property
    def key(self) -> str:
        """Made from the name; names that differ in any byte have different keys."""
        return record_key(self.name)

    def is_file(self) -> bool:
        """Whether it is a regular file, which alone can be read to its end."""
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
        """The file, which the work opens, and its name."""
        return self.file, self.name


def title_of(name: str) -> str:
    """A name as text, also where a file system holds one that is none; names that differ have different titles.

    Undecodable bytes are written by their hexadecimal value after a backslash and an x, a backslash is doubled.
    """
    return name.replace("\\", "\\\\").encode(errors="surrogateescape").decode(errors="backslashreplace")


def clip_files(clips: Path) -> list[ClipFile]:
    """Everything below a folder that is no folder, searched recursively: what is no video is refused by name later.

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
    """Paths of everything below a folder that is no folder, sorted; for `path_of`.

    They are read as UTF-8, so that a file has one name whatever the locale; bytes that are no text become surrogates.
    Links to folders are followed, each folder is visited once, under its own name rather than that of a link to it.
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
    """The file of a folder that `file_names` calls by a name."""
    return folder / os.fsdecode(name.encode(errors="surrogateescape"))
