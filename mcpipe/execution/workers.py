"""Where jobs are done: in this process, or in processes that may die without harm.

A job is one item and the place of its verdict. Whoever does it loads the models once, keeps the verdict itself, and
reports only what went wrong: an exception, a crash or too long a time refuses the item by name and costs no other.
What fails so is not kept; the next run tries it again.
"""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mcpipe.core.allocation import keep_freed_memory, look_seldom
from mcpipe.core.records import Rejection, RejectionError, Storable
from mcpipe.execution.store import save

if TYPE_CHECKING:
    from pebble import ProcessFuture

Decide = Callable[..., Storable]
"""Function of an item's inputs that returns its record or raises `RejectionError`."""
Outcome = tuple[str, Rejection | None]
"""The key of a job that is done, and what went wrong."""
JOBS_AHEAD = 16
"""Jobs handed out ahead of their turn, per worker: one slow item does not make the others wait."""
DETAIL_LENGTH = 200


class Item(Protocol):
    """What work is done on; small, since it travels, and read where the work is done."""

    @property
    def key(self) -> str:
        """Identifies the item."""
        ...

    def digest(self) -> str:
        """Digest of the item's content."""
        ...

    def inputs(self) -> Iterable[object]:
        """The inputs of the work, read from their place."""
        ...


class Work(Protocol):
    """Work of a stage on every item: a frozen dataclass of settings, paths and named functions."""

    def load(self) -> Decide:
        """Load the models; returns the function that decides on one item."""
        ...


@dataclass(frozen=True)
class Job:
    """One item, and where to keep its verdict."""

    item: Item
    place: Path


def settle(decide: Decide, job: Job) -> Rejection | None:
    """Decide on an item and keep the verdict; an exception refuses the item instead.

    Raises:
        ValueError: the stored item is damaged.
        OSError: the verdict cannot be kept.

    """
    inputs = job.item.inputs()
    try:
        verdict = decide(*inputs).to_record()
    except RejectionError as error:
        verdict = error.rejection
    except Exception as error:  # noqa: BLE001  any error that a broken file causes in a library rejects only that file
        return Rejection("failed", " ".join(f"{type(error).__name__}: {error}".split())[:DETAIL_LENGTH])
    save(job.place, verdict)
    return None


def one_thread() -> None:
    """Let numerical libraries use one thread: workers share the cores, and sums come out the same everywhere."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@contextmanager
def inline(work: Work, _workers: int, clip_seconds: float) -> Iterator[Callable[[Iterable[Job]], Iterator[Outcome]]]:
    """Jobs one after another in this process; the time limit holds wherever Python runs."""
    one_thread()
    decide = work.load()

    def run(jobs: Iterable[Job]) -> Iterator[Outcome]:
        for job in jobs:
            try:
                with _alarm(clip_seconds):
                    failure = settle(decide, job)
            except _OvertimeError:
                failure = overtime(clip_seconds)
            yield job.item.key, failure

    yield run


@contextmanager
def pooled(work: Work, workers: int, clip_seconds: float) -> Iterator[Callable[[Iterable[Job]], Iterator[Outcome]]]:
    """Jobs in processes of their own, which are killed when a job takes too long and replaced when they die."""
    with Pool(work, workers, clip_seconds) as pool:

        def run(jobs: Iterable[Job]) -> Iterator[Outcome]:
            waiting: deque[tuple[Job, ProcessFuture]] = deque()
            for job in jobs:
                waiting.append((job, pool.begin(job)))
                if len(waiting) >= workers * JOBS_AHEAD:
                    yield pool.outcome(*waiting.popleft())
            while waiting:
                yield pool.outcome(*waiting.popleft())

        yield run


class Pool:
    """Processes that have loaded the models of a piece of work."""

    def __init__(self, work: Work, workers: int, clip_seconds: float) -> None:
        """Start them and wait until one is ready.

        Raises:
            ValueError: the models are damaged.
            FileNotFoundError: the models are missing.

        """
        from pebble import ProcessPool

        self._clip_seconds = clip_seconds
        # Spawned, because a forked copy of a process with threads can hang.
        context = get_context("spawn")
        self._pool = ProcessPool(workers, context=context, initializer=_begin, initargs=(work,))  # pyright: ignore[reportArgumentType]
        try:
            self._pool.schedule(_ready).result()
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def begin(self, job: Job) -> "ProcessFuture":
        """Hand out a job."""
        return self._pool.schedule(_settle, args=(job,), timeout=self._clip_seconds)

    def outcome(self, job: Job, future: "ProcessFuture") -> Outcome:
        """Wait for a job.

        Raises:
            ValueError: the stored item is damaged.
            OSError: the verdict cannot be kept.

        """
        from pebble import ProcessExpired

        try:
            return job.item.key, future.result()
        except TimeoutError:
            return job.item.key, overtime(self._clip_seconds)
        except ProcessExpired as error:
            return job.item.key, Rejection("crashed", f"the process ended with status {error.exitcode}")

    def _stop(self) -> None:
        self._pool.stop()
        self._pool.join()


def overtime(clip_seconds: float) -> Rejection:
    """The refusal of an item that takes too long."""
    return Rejection("timed_out", f"took over {clip_seconds:g} s")


_loaded: list[Decide | BaseException] = []
"""The models that a worker process has loaded, or the error that it met."""


def _begin(work: Work) -> None:
    look_seldom()
    keep_freed_memory()
    one_thread()
    try:
        _loaded.append(work.load())
    except (ValueError, OSError) as error:
        _loaded.append(error)
    one_thread()


def _ready() -> None:
    _decide()


def _settle(job: Job) -> Rejection | None:
    return settle(_decide(), job)


def _decide() -> Decide:
    (loaded,) = _loaded
    if isinstance(loaded, BaseException):
        raise loaded
    return loaded


class _OvertimeError(BaseException):
    """Interrupts a job; no library's ``except Exception`` holds it up."""


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Interrupt the block after a time; without effect outside of the main thread, where signals cannot be had."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: object) -> None:
        raise _OvertimeError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
