"""The branches of the pipeline with few records and few steps: python -m benchmarks.branches [BRANCH...].

Clones the current commit to .mcpipe/branches, which shares the DVC caches of this checkout, so that what the default
pipeline wrote here is taken from there and not computed again. In the clone the values of BRANCH/quick.yaml replace
those of BRANCH/params.yaml, and the Makefile's target of every branch runs, which prints the branch's table. The
status is 1 if one fails.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from mcpipe.cli.repository import check_repository
from mcpipe.steps.door import changed_by, sections_of

ROOT = Path(__file__).parent.parent
SCRATCH = Path(".mcpipe", "branches")
QUICK, SETTINGS = "quick.yaml", "params.yaml"
READY = ".venv/.ready"
"""What the Makefile makes when packages changed; in the clone it is this environment's and stays as it is."""
OF_AN_OUTER_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ONLY")
"""Variables of the `make` that started this, whose ONLY names a branch and not a stage."""


@dataclass(frozen=True)
class Run:
    """How the target of a branch ended."""

    branch: str
    seconds: float
    status: int

    def __str__(self) -> str:
        return f"{self.branch:<12}{self.seconds:>8.0f} s  {'ok' if self.status == 0 else f'failed with {self.status}'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the branches that are named, or all of them; returns the exit status."""
    parser = argparse.ArgumentParser(prog="branches", description="the branches with few records and few steps")
    parser.add_argument("branches", nargs="*", metavar="BRANCH", help="a folder with a quick.yaml; default: all")
    named = parser.parse_args(arguments).branches
    try:
        check_repository(ROOT)
        chosen = chosen_branches(ROOT, named)
        clone = scratch_clone(ROOT)
        for branch in chosen:
            quicken(clone / branch)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    runs = [run(branch, clone) for branch in chosen]
    print("\n" + "\n".join(map(str, runs)))
    return int(any(each.status for each in runs))


def chosen_branches(root: Path, named: Sequence[str]) -> list[str]:
    """The branches with these names or, if there are none, all folders that have quick settings.

    Raises:
        ValueError: no branch has such a name, or there is none at all.
    """
    known = sorted(file.parent.name for file in root.glob(f"*/{QUICK}"))
    if unknown := [name for name in named if name not in known]:
        raise ValueError(f"no {unknown[0]}/{QUICK}; there are branches {', '.join(known) or 'nowhere'}")
    if not known:
        raise ValueError(f"no folder in {root} has a {QUICK}")
    return list(named) or known


def scratch_clone(root: Path) -> Path:
    """A new clone of the current commit, with this environment and the caches of ``root``.

    Raises:
        CalledProcessError: git or DVC failed; what they said stands on standard error.
    """
    clone = root / SCRATCH
    shutil.rmtree(clone, ignore_errors=True)
    clone.parent.mkdir(exist_ok=True)
    subprocess.run(["git", "clone", "--quiet", "--shared", root, clone], check=True)
    (clone / ".venv").symlink_to(sys.prefix)
    for graph in clone.glob("*/.dvc"):
        _share_cache(root / graph.parent.name, graph.parent)
    _share_cache(root, clone)
    return clone


def _share_cache(original: Path, copy: Path) -> None:
    """Let the graph in ``copy`` use the cache of the one in ``original``."""
    dvc = [sys.executable, "-m", "dvc", "cache", "dir"]
    cache = subprocess.run(dvc, cwd=original, check=True, capture_output=True, encoding="utf-8").stdout.strip()
    subprocess.run([*dvc, "--local", str(original / cache)], cwd=copy, check=True, capture_output=True)


def quicken(branch: Path) -> None:
    """Change the settings of a branch to its quick ones; comments are lost.

    Raises:
        ValueError: the quick settings state a value that neither the branch's own nor the pipeline's have.
    """
    settings, quick = sections_of(branch / SETTINGS), sections_of(branch / QUICK)
    if strange := list(absent(changed_by(sections_of(branch.parent / SETTINGS), settings), quick)):
        raise ValueError(
            f"{branch.name}/{QUICK} states {', '.join(strange)}, which neither {SETTINGS} beside it nor "
            "the pipeline's has"
        )
    text = yaml.safe_dump(changed_by(settings, quick), sort_keys=False, allow_unicode=True)
    (branch / SETTINGS).write_text(text, encoding="utf-8")


def absent(settings: Mapping[str, object], changes: Mapping[str, object], place: str = "") -> Iterator[str]:
    """The places of values in ``changes`` that ``settings`` do not have."""
    for name, value in changes.items():
        before = settings.get(name)
        if name not in settings:
            yield f"{place}{name}"
        elif isinstance(value, dict) and isinstance(before, dict):
            yield from absent(before, value, f"{place}{name}.")


def run(branch: str, clone: Path) -> Run:
    """Run the Makefile's target of a branch in the clone, its output on this terminal."""
    print(f"\n== {branch}", flush=True)
    began = time.monotonic()
    outer = {name: value for name, value in os.environ.items() if name not in OF_AN_OUTER_MAKE}
    environment = {**outer, "PYTHON": sys.executable}
    done = subprocess.run(["make", "--assume-old", READY, branch], cwd=clone, env=environment, check=False)
    return Run(branch, time.monotonic() - began, done.returncode)


if __name__ == "__main__":
    sys.exit(main())
