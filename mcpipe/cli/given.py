"""References given on the command line: people by their faces, objects by a phrase, ``FILE`` or ``FILE:PHRASE``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mcpipe.bench.portraits import Portrait
from mcpipe.core.records import RejectionError
from mcpipe.models.images import read_image
from mcpipe.models.protocols import FaceAnalyser, Picture
from mcpipe.steps.object_finder import ObjectFinder
from mcpipe.steps.pairs import PairsParams, face_of


@dataclass(frozen=True)
class GivenReference:
    """A file and what it shows."""

    file: Path
    phrase: str
    """Description of an object; empty for a person."""


def given_references(arguments: Sequence[Path]) -> list[GivenReference]:
    """The references that arguments name; a colon in the name of a file that exists is no phrase's.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a phrase is empty, or two objects have the same.
    """
    given: list[GivenReference] = []
    for argument in arguments:
        name, colon, phrase = str(argument).rpartition(":")
        is_phrase = bool(colon and name) and not argument.is_file()
        reference = GivenReference(Path(name), phrase.strip()) if is_phrase else GivenReference(argument, "")
        if not reference.file.is_file():
            raise FileNotFoundError(f"no reference picture {reference.file}")
        if is_phrase and not reference.phrase:
            raise ValueError(f"reference {argument}: nothing stands after the colon; say what the picture shows")
        if is_phrase and reference.phrase.casefold() in (other.phrase.casefold() for other in given):
            raise ValueError(f"two references are called {reference.phrase!r}; say what tells them apart")
        given.append(reference)
    return given


def person_reference(file: Path, finder: FaceAnalyser, params: PairsParams, size: int) -> Picture:
    """The only face of an image, cropped like references of training samples: uint8 RGB, ``size`` pixels on a side.

    Raises:
        ValueError: the file is not an image, or has no face or several.
    """
    portrait = Portrait(file, file.name, "reference")
    try:
        return face_of(portrait, finder, params.model_copy(update={"reference_size": size})).reference
    except RejectionError as error:
        reason = error.reason.replace("_", " ")
        about_faces = error.reason in ("no_face", "several_faces")
        expected = "a picture of exactly one face, with some room around it" if about_faces else "an image file"
        if error.reason == "no_face":
            expected += f"; for an object say what it is, as in {file}:'a leather bag'"
        raise ValueError(f"reference {file}: {reason} ({error.detail}); give {expected}") from error


def object_reference(given: GivenReference, finder: ObjectFinder) -> Picture:
    """An object cut out like references of training samples, on white, as wide as the finder's crops.

    Raises:
        ValueError: the file is not an image, or the object is not found in it.
    """
    crop = finder.crop(read_image(given.file, f"reference {given.file}"), given.phrase)
    if crop is None:
        raise ValueError(f"reference {given.file}: {given.phrase!r} is not found; give another picture or phrase")
    return crop
