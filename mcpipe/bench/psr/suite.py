"""PSRBench from its published folder: one JSON file per subset, and folders of reference images beside them.

An entry has an ``instruction``, paths of references (``input_path`` in the published scripts, ``input_paths`` in their
description) and a category per reference (``category1`` to ``category4``). A sample's key is its subset and its place
in the file in four digits, such as ``position-0007``. Names of files and folders have several spellings there.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

SUBSETS = ("attribute", "action", "background", "position", "complex", "three", "four")
SAMPLES_PER_SUBSET = 50
"""Number of published samples."""
SPELLINGS = {
    "attr": "attribute",
    "attributes": "attribute",
    "actions": "action",
    "backgrounds": "background",
    "postion": "position",
    "positions": "position",
    "suject": "subjects",
    "sujects": "subjects",
    "subject": "subjects",
    "animal": "animals",
}
"""Other spellings of subsets and folders of references, in lower case, and the published description's own."""


@dataclass(frozen=True)
class PsrTask:
    """A sample of the suite."""

    key: str
    subset: str
    prompt: str
    references: tuple[str, ...]
    """Paths of the references, as the file spells them."""
    categories: tuple[str, ...]
    """Name of the subject of each reference, by which it is located."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    instruction: str = Field(min_length=1)
    input_path: list[str] = Field(min_length=1, validation_alias=AliasChoices("input_path", "input_paths"))
    category1: str = Field(min_length=1)
    category2: str | None = None
    category3: str | None = None
    category4: str | None = None


def read_suite(folder: Path) -> list[PsrTask]:
    """All samples of the subsets in a folder, which may lack some of the subsets.

    Raises:
        FileNotFoundError: the folder does not exist or has no subset.
        ValueError: a JSON file is no subset, is damaged, or has the same subset as another one.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of PSRBench {folder}; give the one that holds Attribute.json")
    files: dict[str, Path] = {}
    for file in sorted(folder.glob("*.json")):
        subset = subset_of(file.stem)
        if subset is None:
            raise ValueError(f"{file}: {file.stem} is no subset of PSRBench; there are {', '.join(SUBSETS)}")
        if subset in files:
            raise ValueError(f"{file} and {files[subset]} are the same subset; remove one of them")
        files[subset] = file
    if not files:
        raise FileNotFoundError(f"no subset in {folder}; PSRBench has Attribute.json and six more beside it")
    return [task for subset in SUBSETS if subset in files for task in _tasks(subset, files[subset])]


def subset_of(name: str) -> str | None:
    """The subset that a file or folder is called after, in any case and spelling; ``None`` if there is none."""
    subset = SPELLINGS.get(name.lower(), name.lower())
    return subset if subset in SUBSETS else None


def key_of(subset: str, number: int) -> str:
    """The key of a sample by its place in the file of its subset, from 0."""
    return f"{subset}-{number:04d}"


def reference_file(folder: Path, path: str) -> Path | None:
    """The file of a reference below a folder, whose subfolders may be spelt otherwise; ``None`` if there is none."""
    place = folder
    for part in Path(path).parts:
        if not (place / part).exists():
            others = [other for other in _folders(place) if _spelt(other.name) == _spelt(part)]
            if len(others) != 1:
                return None
            place = others[0]
        else:
            place = place / part
    return place if place.is_file() else None


def _tasks(subset: str, file: Path) -> list[PsrTask]:
    try:
        entries = TypeAdapter(list[_Entry]).validate_json(file.read_text(encoding="utf-8-sig"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{file}: {where}: {first['msg']} ({error.error_count()} faults in all)") from error
    if not entries:
        raise ValueError(f"{file}: the list is empty")
    tasks = []
    for number, entry in enumerate(entries):
        named = (entry.category1, entry.category2, entry.category3, entry.category4)
        categories = tuple(category for category in named if category)
        if len(categories) != len(entry.input_path):
            raise ValueError(f"{file}: {number}: {len(entry.input_path)} references and {len(categories)} categories")
        tasks.append(PsrTask(key_of(subset, number), subset, entry.instruction, tuple(entry.input_path), categories))
    return tasks


def _folders(place: Path) -> list[Path]:
    return [folder for folder in place.iterdir() if folder.is_dir()] if place.is_dir() else []


def _spelt(name: str) -> str:
    return SPELLINGS.get(name.lower(), name.lower())
