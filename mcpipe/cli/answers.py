"""Files of a folder that answer prompts, by their names."""

from pathlib import Path

from mcpipe.models.images import is_image


def files_by_prompt(images: Path, keys: set[str]) -> tuple[dict[str, list[Path]], list[Path]]:
    """The images of every prompt, with any ending, and the files that belong to no prompt or are not images.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: a file may be the only image of one prompt or one of several images of another.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"no folder of pictures {images}")
    files: dict[str, list[Path]] = {}
    unknown = []
    for file in sorted(file for file in images.iterdir() if not file.is_dir()):
        key = next((key for key in (file.stem, _without_number(file.stem)) if key in keys), None)
        if key is None or not is_image(file):
            unknown.append(file)
        else:
            files.setdefault(key, []).append(file)
    for key, some in files.items():
        other = _without_number(key)
        alone = {file.stem for file in files.get(other, [])} == {other}
        if other in keys and not alone and key in [file.stem for file in some]:
            raise ValueError(
                f"a picture called {key} in {images} may be the one of the prompt {key} or one of several of {other}; "
                f"call it {key}_0 in the first case, give it another number in the second"
            )
    return files, unknown


def _without_number(stem: str) -> str:
    """The key in ``KEY_0``; empty without a number."""
    start, _, number = stem.rpartition("_")
    return start if number.isdecimal() else ""
