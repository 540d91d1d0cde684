"""The git and DVC commands that a study needs, with their answers as data."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.api import DVCFileSystem

from mcpipe.core.report import read_mapping
from mcpipe.execution.store import PROGRESS_VARIABLE
from studies.plan import Experiment

DVC = (sys.executable, "-m", "dvc")


@dataclass(frozen=True)
class Result:
    """A finished experiment."""

    commit: str
    params: Mapping[str, Any]
    """Its params.yaml."""


@dataclass(frozen=True)
class State:
    """The current commit and the experiments that started from it."""

    commit: str
    params: Mapping[str, Any]
    """The commit's params.yaml."""
    results: Mapping[str, Result]
    """Finished experiments by name."""


class Repository:
    """A checkout with a DVC pipeline."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def commit(self) -> str:
        """The current commit."""
        return self._output(["git", "rev-parse", "HEAD"]).strip()

    def uncommitted(self, besides: Sequence[Path]) -> list[str]:
        """Tracked files that differ from the current commit, except for some files and folders."""
        inside = [path.resolve() for path in besides if path.resolve().is_relative_to(self.root)]
        left_out = [f":(exclude){path.relative_to(self.root)}" for path in inside]
        return self._output(["git", "diff", "--name-only", "HEAD", "--", ".", *left_out]).splitlines()

    def not_in_cache(self) -> list[str]:
        """Outputs of the current commit that DVC's cache does not hold."""
        return json.loads(self._output([*DVC, "data", "status", "--json"]) or "{}").get("not_in_cache", [])

    def state(self) -> State:
        """The current commit and its finished experiments, as ``dvc exp show --json`` reports them."""
        head = self.commit()
        state = json.loads(self._output([*DVC, "exp", "show", "--json"]))
        base = next(entry for entry in state if entry["rev"] == head and entry["name"] != "workspace")
        results = {
            entry["name"]: Result(last["rev"], _params(last))
            for entry in base["experiments"] or []
            if entry["executor"] is None and (last := entry["revs"][0])["data"] is not None
        }
        return State(head, _params(base), results)

    def run(self, experiment: Experiment, log: Path, lock: int, progress: Path) -> bool:
        """Run an experiment in a copy of the checkout; returns whether it succeeded.

        Output goes to ``log``. DVC holds the file descriptor ``lock`` open as long as it lives, even if this process
        is killed. Trainings keep their checkpoints in ``progress``, where a later run of the experiment finds them.
        """
        changes = [part for override in experiment.overrides for part in ("-S", override)]
        command = [*DVC, "exp", "run", "--temp", "--name", experiment.name, *changes, experiment.target]
        environment = _environment() | {PROGRESS_VARIABLE: str(progress.resolve())}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                command, cwd=self.root, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, pass_fds=[lock], start_new_session=True,
            )  # fmt: skip
            try:
                return process.wait() == 0
            except BaseException:  # the experiment ends with the study, its stage included
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise

    def discard_abandoned(self, names: Collection[str]) -> None:
        """Delete the copies of the checkout of killed experiments, none of which may be running."""
        for file in (self.root / ".dvc" / "tmp" / "exps" / "run").glob("*/*.run"):
            info = read_mapping(file)
            if info.get("name") in names:
                shutil.rmtree(str(info["root_dir"]), ignore_errors=True)
                file.unlink()

    def export(self, commit: str, paths: Sequence[str], folder: Path) -> None:
        """Copy files and folders of a commit, outputs of its stages included, into a folder.

        Raises:
            FileNotFoundError: the commit has no such path, or DVC's cache has not.
        """
        source = DVCFileSystem(str(self.root), rev=commit)
        for path in paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            source.get(path, str(folder / path), recursive=source.isdir(path))

    def _output(self, command: Sequence[str]) -> str:
        done = subprocess.run(
            command, cwd=self.root, env=_environment(), check=False, capture_output=True, encoding="utf-8"
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
        return done.stdout


def _environment() -> dict[str, str]:
    """The environment in which ``python`` is this interpreter, also where no virtual environment is active."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {"DVC_NO_ANALYTICS": "true"} | os.environ | {"PATH": path}


def _params(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return entry["data"]["params"]["params.yaml"]["data"]
