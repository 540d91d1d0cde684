"""The zoo's stages side by side: ``python -m zoo.build.parallel [STAGE...]`` runs what is not up to date.

DVC runs one stage after another. Its locks let several processes reproduce one stage each, so this starts as many as
there are cores to use, always the ready stage that begins the longest chain. DVC alone decides what is up to date.
"""

import functools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import yaml

from mcpipe.cli.repository import check_repository

logger = logging.getLogger("zoo")

GRAPH = Path("dvc.yaml")
CORES = 2
"""Every training uses one."""

SECONDS_TO_END = 10.0
"""Grace of a stage that is asked to stop."""

ROOT = Path(__file__).resolve().parents[2]
SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class Stage:
    """Facts about a stage that determine its turn."""

    name: str
    needs: frozenset[str]
    """Stages whose results it reads."""
    minutes: float
    """How long it takes on one core, from ``meta``."""


def main(names: list[str]) -> int:
    """Run the stages of the names and what they need, or all; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    stages = read_stages(GRAPH)
    if unknown := sorted(set(names) - set(stages)):
        logger.error("error: no stage %s in %s; there are %s", ", ".join(unknown), GRAPH, ", ".join(stages))
        return 2
    try:
        check_repository(ROOT)
    except FileNotFoundError as error:
        logger.log(logging.ERROR, "error: %s", error)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = with_needs(stages, names or stages)
    try:
        failed = run(chosen, _reproduce)
    except KeyboardInterrupt:
        logger.info("stopped; the same command goes on from here")
        return 130
    if failed:
        logger.error("error: failed: %s; the same command tries them again", ", ".join(failed))
    return 1 if failed else 0


def read_stages(file: Path) -> dict[str, Stage]:
    """The stages of a dvc.yaml, by name."""
    written = yaml.safe_load(file.read_text(encoding="utf-8"))["stages"]
    owners = {out: name for name, stage in written.items() for out in stage["outs"]}
    return {
        name: Stage(name, frozenset(owners[dep] for dep in stage["deps"] if dep in owners), stage["meta"]["minutes"])
        for name, stage in written.items()
    }


def with_needs(stages: Mapping[str, Stage], names: Iterable[str]) -> dict[str, Stage]:
    """The named stages and all that they need, in the order of ``stages``."""
    needed: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        needed.add(name)
        waiting += stages[name].needs - needed
    return {name: stage for name, stage in stages.items() if name in needed}


def run(stages: Mapping[str, Stage], start: Callable[[str], subprocess.Popen[str]], cores: int = CORES) -> list[str]:
    """Run every stage once all it needs have ended well, ``cores`` at a time; returns those that failed.

    After a failure the stages that do not need the failed one still run. Whatever ends this early, an interrupt too,
    ends the running stages with it.
    """
    urgency = chains(stages)
    waiting = sorted(stages, key=lambda name: -urgency[name])
    running: dict[str, subprocess.Popen[str]] = {}
    done: set[str] = set()
    failed: list[str] = []
    starts: dict[str, float] = {}
    began = time.monotonic()
    serial = sum(stage.minutes for stage in stages.values())
    guess = max(serial / cores, max(urgency.values(), default=0.0))
    logger.info("%d stages; about %.0f minutes if nothing is up to date", len(stages), guess)
    try:
        while waiting or running:
            for name in ready(stages, waiting, done)[: cores - len(running)]:
                waiting.remove(name)
                running[name], starts[name] = start(name), time.monotonic()
            for name in [name for name, process in running.items() if process.poll() is not None]:
                (failed.append if running.pop(name).returncode else done.add)(name)
                own, all_of_it = ((time.monotonic() - moment) / 60 for moment in (starts[name], began))
                outcome = "failed" if name in failed else "is up to date"
                logger.info(
                    "%s %s after %.1f minutes; %d of %d after %.1f",
                    name, outcome, own, len(done), len(stages), all_of_it,
                )  # fmt: skip
            if not running and not ready(stages, waiting, done):
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        _end(running.values())
    return failed


def ready(stages: Mapping[str, Stage], waiting: Iterable[str], done: Collection[str]) -> list[str]:
    """The waiting stages whose needs are met."""
    return [name for name in waiting if stages[name].needs <= set(done)]


def chains(stages: Mapping[str, Stage]) -> dict[str, float]:
    """Minutes from the beginning of each stage to the end of the longest chain that needs it."""

    @functools.cache
    def minutes(name: str) -> float:
        later = (minutes(other.name) for other in stages.values() if name in other.needs)
        return stages[name].minutes + max(later, default=0.0)

    return {name: minutes(name) for name in stages}


def _reproduce(name: str) -> subprocess.Popen[str]:
    """Start DVC on one stage, in a process group of its own, with the stage's name before every line it prints."""
    command = [sys.executable, "-P", "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
    process = subprocess.Popen(
        command, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    threading.Thread(target=_show, args=(name, process.stdout), daemon=True).start()
    return process


def _show(name: str, lines: TextIO) -> None:
    for line in lines:
        if line.strip():
            logger.info("%s | %s", name, line.rstrip())


def _end(processes: Iterable[subprocess.Popen[str]]) -> None:
    """Ask processes and their children to stop, and make them."""
    left = list(processes)
    for process in left:
        os.killpg(process.pid, signal.SIGTERM)
    until = time.monotonic() + SECONDS_TO_END
    for process in left:
        try:
            process.wait(max(until - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
