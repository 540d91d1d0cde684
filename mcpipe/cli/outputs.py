"""Outputs of verbs: checked against all inputs before the work, and written completely or not at all.

Every verb lists its outputs and its inputs and calls `check_outputs` once. Paths are compared as the file system sees
them, through links, ``..`` and hard links.
"""

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from errno import ENAMETOOLONG
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal
from uuid import uuid4

from PIL import Image

Kind = Literal["picture", "file", "folder", "store"]
"""A folder is replaced as a whole; files in a store come and go; other kinds are single files."""
ELSEWHERE = "choose another place"


@dataclass(frozen=True)
class Output:
    """A file or folder that a verb writes."""

    option: str
    """Option that names it, such as ``--out``."""
    path: Path
    kind: Kind
    longest: str = ""
    """Longest path that is written below a folder."""
    may_lie_in: frozenset[str] = frozenset()
    """Names of input folders in which it may lie, because the verb skips it when it reads them."""

    def __str__(self) -> str:
        """Name in messages."""
        return f"{self.option} {self.path}"

    def written(self) -> list[Path]:
        """All paths that are created, replaced or removed while it is written."""
        if self.kind == "folder":  # see `mcpipe.core.shards.whole_folder`
            return [self.path, self.path.with_name(f".{self.path.name}.unfinished")]
        return [self.path, self.path.with_name(f".{self.path.stem}.unfinished")] if self.kind == "file" else [self.path]


def check_outputs(outputs: Sequence[Output], inputs: Mapping[str, Path]) -> None:
    """Check before the work that every output can be written and that no input is lost.

    ``inputs`` are the files and folders that the verb reads, by the options that name them.

    Raises:
        ValueError: an output is an input, lies in an input folder or holds an input; two outputs get in each other's
            way; or a place is of another kind than what is written there.
        OSError: a place cannot be written, or a name is too long for its file system.
    """
    for output in outputs:
        _check_kind(output)
        _check_place(output)
    for output in outputs:
        for name, path in inputs.items():
            _check_against(output, name, path)
    for number, output in enumerate(outputs):
        for other in outputs[:number]:
            if _same(output.path, other.path) or _inside(output.path, other.path) or _inside(other.path, output.path):
                raise ValueError(f"{output} and {other} get in each other's way; {ELSEWHERE} for one of them")


def lying_in(files: Iterable[Path], places: Sequence[Path]) -> set[Path]:
    """The files that equal one of ``places`` or lie below one, after following links."""
    below = cache(lambda path: any(_same(path, place) or _inside(path, place) for place in places))
    single = {os.path.realpath(place) for place in places}
    real = {file: os.path.realpath(file) for file in files}
    return {file for file, place in real.items() if place in single or below(Path(place).parent)}


def existing(folder: Path) -> Path:
    """The folder itself, or its nearest existing parent."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path))


def write_pictures(pictures: Mapping[Path, Image.Image], *, optimize: bool = False) -> None:
    """Write all images, or none of them.

    Raises:
        OSError: an image cannot be written; earlier files stay.
    """
    # A name of fixed length that nothing else has; the ending says in which format to write.
    unfinished = {file: file.with_name(f".{uuid4().hex}{file.suffix}") for file in pictures}
    try:
        for file, picture in pictures.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(unfinished[file], optimize=optimize)
        for file, final in unfinished.items():
            final.replace(file)
    finally:
        for rest in unfinished.values():
            rest.unlink(missing_ok=True)


def _check_kind(output: Output) -> None:
    """Check the ending of an image file, and the kind of an existing file."""
    if output.kind == "picture":
        _check_ending(output.path)
    if output.kind == "folder" and output.path.is_symlink():
        raise ValueError(f"{output} is a link, which would be replaced by a folder; {ELSEWHERE}")
    if output.kind in ("folder", "store"):
        if output.path.exists() and not output.path.is_dir():
            raise ValueError(f"{output} is no folder; {ELSEWHERE}")
    elif output.path.is_dir():
        raise ValueError(f"{output} is a folder; name a file")
    elif output.path.exists() and not output.path.is_file():
        raise ValueError(f"{output} is no regular file; {ELSEWHERE}")


def _check_ending(file: Path) -> None:
    try:
        # Some formats can only be read, and some that Pillow lists as written take no colours.
        Image.new("RGB", (16, 16)).save(io.BytesIO(), Image.registered_extensions()[file.suffix.lower()])
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"{file} should end as a picture does that can be written, such as .png") from error


def _check_place(output: Output) -> None:
    """Check by a trial that the place is writable, and check the length of the longest names."""
    try:
        for path in output.written():
            near = existing(path.parent)
            with TemporaryFile(dir=near):
                pass
            _check_length(path / output.longest, near)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(output.path)) from error


def _check_length(path: Path, near: Path) -> None:
    # A look-up stops at the first name that is missing, before it comes to a later one that is too long.
    if max(len(os.fsencode(part)) for part in path.parts) > os.pathconf(near, "PC_NAME_MAX"):
        raise OSError(ENAMETOOLONG, os.strerror(ENAMETOOLONG))
    with suppress(FileNotFoundError, NotADirectoryError):
        path.lstat()


def _check_against(output: Output, name: str, path: Path) -> None:
    what = f"{name} {path}"
    for place in output.written():
        if _same(place, path):
            raise ValueError(f"{output} is the same as {what}, which is read; {ELSEWHERE}")
        if output.kind in ("folder", "store") and _inside(path, place):
            raise ValueError(f"{output} would be replaced, and with it {what}, which is read; {ELSEWHERE}")
        if name not in output.may_lie_in and _inside(place, path):
            raise ValueError(f"{output} lies in {what}, which is read; {ELSEWHERE}")


def _same(first: Path, second: Path) -> bool:
    """Whether two paths lead to one file or folder, also by a hard link, or will do so."""
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    try:
        return first.samefile(second)
    except OSError:
        return False


def _inside(path: Path, folder: Path) -> bool:
    """Whether a path leads to somewhere below a folder, or will do so."""
    return any(_same(parent, folder) for parent in Path(os.path.realpath(path)).parents)
