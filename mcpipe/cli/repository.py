"""The git repository of a project, which DVC needs; an export as a ZIP file has none."""

from pathlib import Path
from shutil import which


def check_repository(folder: Path) -> None:
    """Check that a folder lies in a git repository.

    Raises:
        FileNotFoundError: the folder lies outside of a repository, or git is not installed.
    """
    if which("git") is None:
        raise FileNotFoundError("git is not installed, and DVC needs it; install git")
    place = folder.absolute()
    if not any((parent / ".git").exists() for parent in (place, *place.parents)):
        raise FileNotFoundError(
            f"{place} is no git repository, as an export is none, and DVC needs one; clone the project, "
            "or run `git init && git add --all && git commit --message start` there"
        )
