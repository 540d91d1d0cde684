"""Where verbs write: looked at before the work, and written whole or not at all."""

import io
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

from PIL import Image


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def check_picture_file(file: Path) -> None:
    """Make sure that a picture can be written to a file, in a folder that need not be there yet.

    Raises:
        ValueError: the ending names no format that pictures can be written in, or the file is a folder.
        OSError: nothing can be written there.
    """
    try:
        # Some formats can only be read, and some that Pillow lists as written take no colours.
        Image.new("RGB", (16, 16)).save(io.BytesIO(), Image.registered_extensions()[file.suffix.lower()])
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"{file} should end as a picture does that can be written, such as .png") from error
    if file.is_dir():
        raise ValueError(f"{file} is a folder; name a file")
    try:
        with TemporaryFile(dir=existing(file.parent)):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error


def write_pictures(pictures: Mapping[Path, Image.Image]) -> None:
    """Write pictures, all or none of them.

    Raises:
        OSError: one of them cannot be written; what was there before stays.
    """
    unfinished = {file: file.with_name(f".unfinished.{file.name}") for file in pictures}
    try:
        for file, picture in pictures.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(unfinished[file])
        for file, whole in unfinished.items():
            whole.replace(file)
    finally:
        for rest in unfinished.values():
            rest.unlink(missing_ok=True)
