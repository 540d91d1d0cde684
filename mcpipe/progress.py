"""Progress of long work: a live bar on a terminal, a line every few seconds in a log."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 5.0


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """The same items, while counts, rate and time left are shown to whoever watches."""
    if sys.stderr.isatty():
        return _bar(items, total, label)
    return _lines(items, total, label)


def _bar(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    rate = TextColumn("{task.fields[rate]}")
    with Progress(TextColumn(label), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn()) as progress:
        task = progress.add_task(label, total=total, rate="")
        start = time.monotonic()
        for done, item in enumerate(items, 1):
            yield item
            progress.update(task, advance=1, rate=f"{done / max(time.monotonic() - start, 1e-9):.1f}/s")


def _lines(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES or done == total:
            last = now
            rate = done / max(now - start, 1e-9)
            logger.info("%s: %d/%d, %.1f/s, %.0f s left", label, done, total, rate, (total - done) / rate)
