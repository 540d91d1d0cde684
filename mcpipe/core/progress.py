"""Progress of long work: a live bar on a terminal, a line every few seconds in a log."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 5.0

Note = Callable[[], str]
"""What else is worth saying of the latest item."""


def track(items: Iterable[T], total: int, label: str, note: Note | None = None) -> Iterator[T]:
    """The same items; counts, rate, remaining time and the note are shown on the terminal or logged."""
    if sys.stderr.isatty():
        return _bar(items, total, label, note)
    return _lines(items, total, label, note)


def duration(seconds: float) -> str:
    """A time in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _bar(items: Iterable[T], total: int, label: str, note: Note | None) -> Iterator[T]:
    rate_column = TextColumn("{task.fields[rate]}")
    with Progress(TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), rate_column) as progress:
        task = progress.add_task(label, total=total, rate="")
        start = time.monotonic()
        for done, item in enumerate(items, 1):
            yield item
            rate = f"{done / max(time.monotonic() - start, 1e-9):.3g}/s"
            progress.update(task, advance=1, rate=f"{rate}, {note()}" if note else rate)


def _lines(items: Iterable[T], total: int, label: str, note: Note | None) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES or done == total:
            last = now
            rate = done / max(now - start, 1e-9)
            left = duration((total - done) / rate)
            logger.info("%s: %d/%d, %.3g/s, %s left%s", label, done, total, rate, left, f"; {note()}" if note else "")
