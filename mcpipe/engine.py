"""Mapping a record function over many items: what it returns goes on, what it rejects is counted by name."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from mcpipe.progress import track
from mcpipe.records import Record, Rejection
from mcpipe.report import Report

T = TypeVar("T")


def kept(
    items: Iterable[tuple[str, T]], total: int, decide: Callable[[T], Record | Rejection], report: Report
) -> Iterator[Record]:
    """The records that ``decide`` makes of keyed items, in order; ``report`` counts those and the rejections."""
    for key, item in track(items, total, report.stage):
        verdict = decide(item)
        if isinstance(verdict, Rejection):
            report.drop(key, verdict.reason, verdict.detail)
        else:
            report.keep(key)
            yield verdict
