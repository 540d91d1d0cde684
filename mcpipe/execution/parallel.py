"""Work on independent jobs in several processes of one machine, with the same results as in one."""

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, TypeVar

import psutil

from mcpipe.execution.workers import one_thread

J_contra = TypeVar("J_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
MEMORY_PER_BYTE = 4
"""Main memory of a process in sizes of its models on disk: weights are converted and computed with."""


class Loader(Protocol[J_contra, R_co]):
    """A frozen dataclass of paths and settings that makes the function for one job; it can be pickled."""

    def load(self) -> Callable[[J_contra], R_co]:
        """Load the models; returns the function."""
        ...


def mapped(loader: Loader[J_contra, R_co], jobs: Sequence[J_contra], workers: int) -> Iterator[R_co]:
    """Results in the order of ``jobs``; each process loads the models once and uses one thread.

    Several processes start at once; this one begins when the first result is wanted. Errors of loading and of jobs are
    raised with the results.
    """
    if workers == 1:
        return _here(loader, jobs)
    pool = ProcessPoolExecutor(workers, get_context(start_method()), _begin, (loader,))
    return _results(pool, pool.map(_do, jobs))


def start_method() -> str:
    """``fork``, which keeps imports, in a process without threads, whose locks it would keep; else ``spawn``."""
    threads = Path("/proc/self/task")
    alone = sys.platform == "linux" and threads.is_dir() and len(list(threads.iterdir())) == 1
    return "fork" if alone else "spawn"


def _here(loader: Loader[J_contra, R_co], jobs: Sequence[J_contra]) -> Iterator[R_co]:
    one_thread()
    yield from map(loader.load(), jobs)


def _results(pool: ProcessPoolExecutor, results: Iterator[Any]) -> Iterator[Any]:
    with pool:
        yield from results


def num_processes(models: Path, num_jobs: int) -> int:
    """How many processes work on jobs: ``MCPIPE_WORKERS``, or one per core if ``models`` fit into memory so often.

    Where there is a GPU, it is one.

    Raises:
        ValueError: ``MCPIPE_WORKERS`` is no positive whole number.
    """
    given = os.environ.get("MCPIPE_WORKERS", "")
    if given:
        if not given.isdecimal() or int(given) < 1:
            raise ValueError(f"MCPIPE_WORKERS should be a positive whole number, not {given!r}")
        return min(int(given), num_jobs)
    import torch

    if torch.cuda.is_available():
        return 1
    size = sum(file.stat().st_size for file in models.rglob("*") if file.is_file())
    room = psutil.virtual_memory().available // max(MEMORY_PER_BYTE * size, 1)
    return max(1, min(len(psutil.Process().cpu_affinity() or [0]), room, num_jobs))


_loaders: list[Loader[Any, Any]] = []
"""The loader of this process, if it is a worker."""


def _begin(loader: Loader[Any, Any]) -> None:
    gc.freeze()  # what a fork inherits is not its own to free
    one_thread()
    _loaders[:] = [loader]


@cache
def _work() -> Callable[[Any], Any]:
    """Loaded with the first job, so that an error of loading reaches the caller."""
    return _loaders[0].load()


def _do(job: object) -> object:
    return _work()(job)
