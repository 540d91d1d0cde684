"""What the ablation asks of DVC and git, as they are called by people."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from mcpipe.core.params import parse_yaml
from studies.ablation.plan import Experiment

TASK = re.compile(r"^[0-9a-f]{7}\s+(?P<name>\S+)\s.*\s(?P<status>Queued|Running|Success|Failed)\s*$")
LOOKS = 4
FROM_WORST = ("Failed", "Success", "Queued", "Running")


@dataclass(frozen=True)
class Queue:
    """What ``dvc queue status`` says."""

    tasks: dict[str, str]
    """Status by experiment; of several tasks of one name, the one that promises most."""
    has_workers: bool

    @property
    def has_idle_workers(self) -> bool:
        """Whether there are workers, and nothing to do for them."""
        return self.has_workers and not {"Queued", "Running"} & set(self.tasks.values())


class Repository:
    """A checkout with a DVC pipeline."""

    def __init__(self, root: Path, jobs: int) -> None:
        self.root = root
        self.jobs = jobs

    def commit(self) -> str:
        """The current commit."""
        return self._git("rev-parse", "HEAD").strip()

    def uncommitted(self, besides: Path) -> str:
        """Tracked files that differ from the current commit, outside of one folder; in git's words."""
        inside = besides.resolve().is_relative_to(self.root.resolve())
        left_out = [f":(exclude){besides.resolve().relative_to(self.root.resolve())}"] if inside else []
        return self._git("status", "--porcelain", "--untracked-files=no", "--", ".", *left_out).rstrip()

    def missing(self) -> list[str]:
        """Outputs of the current commit that are not in the cache."""
        return json.loads(self._dvc("data", "status", "--json") or "{}").get("not_in_cache", [])

    def finished(self) -> dict[str, str]:
        """Commits of the finished experiments that started from the current commit, by name."""
        head = self.commit()
        command = ["for-each-ref", "--format=%(objectname) %(refname)", f"refs/exps/{head[:2]}/{head[2:]}"]
        listed = settled(lambda: self._git(*command))
        return {name.rsplit("/", 1)[1]: commit for commit, name in map(str.split, listed.splitlines())}

    def params(self, commit: str) -> dict[str, Any]:
        """The params.yaml of a commit."""
        content = parse_yaml(self._git("show", f"{commit}:./params.yaml"))
        assert isinstance(content, dict), "DVC has read it"
        return content

    def queue(self) -> Queue:
        """Tasks and workers."""
        return read_queue(settled(lambda: self._dvc("queue", "status")))

    def enqueue(self, experiment: Experiment) -> None:
        """Put an experiment into the queue, unless it has ended by now with a result."""
        settings = [part for change in experiment.changes for part in ("-S", change)]
        try:
            self._dvc("exp", "run", "--queue", "--name", experiment.name, *settings, *experiment.targets)
        except RuntimeError as error:  # between two looks, the queue has forgotten a task whose result is just coming
            if "conflicts with existing experiment" not in str(error):
                raise

    def forget(self, name: str) -> None:
        """Take ended tasks of a name out of the queue's books."""
        self._dvc("queue", "remove", name, check=False)

    def give_up(self, name: str) -> None:
        """End a task; one that nobody works on counts as failed."""
        self._dvc("queue", "kill", name, check=False)

    def start_workers(self) -> None:
        """Have the queue worked off in the background."""
        self._dvc("queue", "start", "--jobs", str(self.jobs))

    def log(self, name: str) -> str:
        """What an experiment printed.

        Raises:
            RuntimeError: DVC has forgotten it, or its worker is just putting the books in order.
        """
        return self._dvc("queue", "logs", name)

    def _git(self, *arguments: str) -> str:
        return self._run(["git", *arguments], dict(os.environ), check=True)

    def _dvc(self, *arguments: str, check: bool = True) -> str:
        environment = {"DVC_NO_ANALYTICS": "true"} | os.environ
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return self._run([sys.executable, "-m", "dvc", *arguments], environment, check=check)

    def _run(self, command: list[str], environment: dict[str, str], *, check: bool) -> str:
        # Files and no pipes: DVC's workers hold on to what they inherit, and a pipe's end would come with theirs.
        with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            done = subprocess.run(command, cwd=self.root, env=environment, check=False, stdout=out, stderr=err)
            out.seek(0)
            err.seek(0)
            if check and done.returncode:
                raise RuntimeError(f"`{' '.join(command)}` failed: {err.read().strip()}")
            return out.read()


def settled(look: Callable[[], str]) -> str:
    """What a look finds, or a later one: a worker may be writing just then what is read."""
    for _ in range(LOOKS - 1):
        try:
            return look()
        except RuntimeError:
            time.sleep(1.0)
    return look()


def read_queue(status: str) -> Queue:
    """What the text of ``dvc queue status`` says."""
    tasks: dict[str, str] = {}
    for line in status.splitlines():
        if match := TASK.match(line):
            name, new = match["name"], match["status"]
            tasks[name] = max(tasks.get(name, new), new, key=FROM_WORST.index)
    workers = re.search(r"Worker status: (\d+) active, (\d+) idle", status)
    return Queue(tasks, workers is not None and workers.groups() != ("0", "0"))
