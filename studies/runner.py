"""The experiments of a study, run one after another until all of them have a result.

DVC keeps the results: an experiment of the current commit that has ended well is not run again, and stages that
experiments share come out of DVC's run-cache. So a study that was interrupted, or that got more seeds, goes on where
it stands. A file lock keeps two studies of a checkout apart; an experiment whose study was killed holds it to its end.
"""

import fcntl
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mcpipe.core.progress import duration
from studies.plan import Experiment, changed
from studies.repository import Repository, Result, State

WORK = Path(".mcpipe/studies")
"""Folder of the lock, logs and checkpoints, which git ignores."""

logger = logging.getLogger("studies")


def run_experiments(repository: Repository, experiments: Sequence[Experiment], own: Sequence[Path]) -> list[Result]:
    """Run the experiments that have no result yet; returns the results of all, in order.

    Changes of the files and folders ``own`` do not matter, as no experiment reads them.

    Raises:
        ValueError: the checkout differs from its commit, the commit's results are not in the cache, the plan changes
            a setting that does not exist, or an experiment of the same name was run with other settings.
        RuntimeError: experiments failed, or the checkout changed meanwhile.
    """
    work = repository.root / WORK
    with sole_user(work / "lock") as lock:
        repository.discard_abandoned({experiment.name for experiment in experiments})
        state = checked_state(repository, experiments, own)
        missing = [experiment for experiment in experiments if experiment.name not in state.results]
        if missing and (paths := repository.not_in_cache()):  # DVC reads all metrics when an experiment ends
            raise ValueError(f"run `dvc repro` or `dvc pull` first: not in the cache are {', '.join(paths)}")
        num_done, start = len(experiments) - len(missing), time.monotonic()
        logger.info("%d of %d experiments are finished; logs in %s", num_done, len(experiments), WORK)
        failed = []
        for number, experiment in enumerate(missing, 1):
            check_unchanged(repository, state.commit, own)
            log = WORK / f"{experiment.name}.log"
            succeeded = repository.run(experiment, repository.root / log, lock, work / "progress")
            if not succeeded:
                failed.append(f"{experiment.name} (see {log})")
            mean_s = (time.monotonic() - start) / number
            logger.info(
                "%d of %d: %s %s; %.3g an hour, %s left", num_done + number, len(experiments), experiment.name,
                "finished" if succeeded else "FAILED", 3600 / mean_s, duration(mean_s * (len(missing) - number)),
            )  # fmt: skip
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(experiments)} experiments failed: {', '.join(failed)}")
    results = checked_state(repository, experiments, own).results if missing else state.results
    if lost := [experiment.name for experiment in experiments if experiment.name not in results]:
        raise RuntimeError(f"DVC lists no result of {', '.join(lost)}; run this again")
    return [results[experiment.name] for experiment in experiments]


def checked_state(repository: Repository, experiments: Sequence[Experiment], own: Sequence[Path]) -> State:
    """The state of the experiments, once the checkout and all finished ones fit the plan.

    Raises:
        ValueError: see `run_experiments`.
    """
    if paths := repository.uncommitted(own):
        raise ValueError(f"commit or stash first, so that experiments belong to a commit: {', '.join(paths)}")
    state = repository.state()
    for experiment in experiments:
        result = state.results.get(experiment.name)
        if result is None:
            changed(state.params, experiment.settings)
        elif fault := experiment.difference(state.params, result.params):
            raise ValueError(
                f"{experiment.name} was run with {fault}; `dvc exp remove {experiment.name}` and run this again"
            )
    return state


def check_unchanged(repository: Repository, commit: str, own: Sequence[Path]) -> None:
    """Check that the checkout is unchanged since the study began.

    Raises:
        RuntimeError: another commit is checked out, or files were edited.
    """
    if (now := repository.commit()) != commit:
        raise RuntimeError(
            f"the checkout went from {commit[:7]} to {now[:7]} during the study; `git checkout {commit[:7]}` and run "
            "this again to go on"
        )
    if paths := repository.uncommitted(own):
        raise RuntimeError(f"files were edited during the study: {', '.join(paths)}; put them back and run this again")


@contextmanager
def sole_user(file: Path) -> Iterator[int]:
    """A file's lock, waited for if another process holds it; yields the descriptor, whose copies keep the lock."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another study, or an experiment that an interrupted one has left, runs here; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream.fileno()
