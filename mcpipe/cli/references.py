"""References of a public suite: their files in a user's folder, and their features."""

from collections.abc import Iterable
from pathlib import Path

from mcpipe.bench.public_metrics import Features, PublicScorers, embed_reference, mean_features
from mcpipe.bench.suites import Subject
from mcpipe.models.images import is_image, read_image


def reference_files(subjects: Iterable[str], folder: Path | None, *, every: bool) -> dict[str, list[Path]]:
    """The files of the references in the user's folder, by their path in the suite.

    With ``every``, these are all images that lie beside a reference.

    Raises:
        FileNotFoundError: the folder is missing.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of references {folder}")
    files = {path: folder / path for path in subjects if (folder / path).is_file()}
    if not every:
        return {path: [file] for path, file in files.items()}
    return {path: sorted(filter(is_image, file.parent.iterdir())) for path, file in files.items()}


def load_features(
    subjects: dict[str, Subject], files: dict[str, list[Path]], scorers: PublicScorers
) -> dict[str, Features]:
    """Features of the references, by their path in the suite.

    Raises:
        ValueError: a reference is damaged.
    """
    features = {}
    for path, images in files.items():
        pictures = [read_image(file, f"reference {path}") for file in images]
        embedded = [embed_reference(subjects[path], picture, scorers) for picture in pictures]
        features[path] = embedded[0] if len(embedded) == 1 else mean_features(embedded)
    return features
