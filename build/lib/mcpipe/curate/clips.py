"""Clip files of a folder: which files there are, under which keys, and which of them are videos by name."""

import os
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from mcpipe.core.records import record_key

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif"})
"""Endings of video files, in lower case."""


@dataclass(frozen=True)
class ClipFile:
    """A video file by its folder and its path in it."""

    folder: Path
    name: str

    @property
    def file(self) -> Path:
        """The file itself."""
        return self.folder / self.name

    @property
    def title(self) -> str:
        """The name as text, also where a file system holds one that is none."""
        return self.name.encode(errors="surrogateescape").decode(errors="backslashreplace")

    @property
    def key(self) -> str:
        """Made from the title."""
        return record_key(self.title)

    def is_clip(self) -> bool:
        """Whether it is a regular file and called like a video."""
        return self.file.suffix.lower() in SUFFIXES and self.file.is_file()

    def digest(self) -> str:
        """Digest of the bytes of the file, or of the fault that keeps them from being read."""
        try:
            with self.file.open("rb") as content:
                return file_digest(content, "sha256").hexdigest()
        except OSError as error:
            return str(error.strerror)

    def inputs(self) -> tuple[Path, str]:
        """The file, which the work opens, and its title."""
        return self.file, self.title


def clip_files(clips: Path) -> list[ClipFile]:
    """All files of a folder, searched recursively, that are called like videos.

    Raises:
        FileNotFoundError: the folder is missing or holds none.

    """
    if not clips.is_dir():
        raise FileNotFoundError(f"no folder of clips {clips}")
    files = [clip for name in file_names(clips) if (clip := ClipFile(clips, name)).is_clip()]
    if not files:
        raise FileNotFoundError(f"no clip in {clips}; looked for {' '.join(sorted(SUFFIXES))}")
    return files


def file_names(folder: Path) -> list[str]:
    """Paths of everything below a folder that is no folder, sorted.

    Links to folders are followed, each folder is visited once, under its own name rather than that of a link to it.
    """
    names: list[str] = []
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
                names += [(here / name).relative_to(folder).as_posix() for name in files]
        links = later
    return sorted(names)
