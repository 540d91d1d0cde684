"""Application of a decision to many items: accepted items continue, rejected ones are counted by reason.

The environment chooses where the work of a stage is done, which never changes what comes out: ``MCPIPE_ENGINE`` is
``inline`` (this process), ``pool`` (processes of this machine) or ``ray`` (a cluster), ``MCPIPE_WORKERS`` how many
processes hold models, ``MCPIPE_CLIP_SECONDS`` after how long a clip is given up.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from mcpipe.core.packing import Packed
from mcpipe.core.progress import track
from mcpipe.core.records import Rejection, RejectionError, Storable
from mcpipe.core.report import Report
from mcpipe.core.shards import whole_folder, write_shards
from mcpipe.execution.fingerprint import fingerprint
from mcpipe.execution.ray_workers import on_ray
from mcpipe.execution.store import Store, holds, load, progress_of
from mcpipe.execution.workers import Item, Job, Work, inline, pooled

T = TypeVar("T")
R = TypeVar("R", bound=Storable)

ENGINES = {"inline": inline, "pool": pooled, "ray": on_ray}


class Items(Protocol):
    """Items in the order of their keys; can be walked more than once."""

    def __iter__(self) -> Iterator[Item]:
        """One after another."""
        ...


@dataclass(frozen=True)
class EngineSettings:
    """Facts about the machine; they change no result."""

    engine: str
    workers: int
    clip_seconds: float

    @classmethod
    def of_environment(cls) -> "EngineSettings":
        """What the environment says.

        Raises:
            ValueError: a variable has no sense.

        """
        engine = os.environ.get("MCPIPE_ENGINE", "inline")
        if engine not in ENGINES:
            raise ValueError(f"MCPIPE_ENGINE should be one of {', '.join(ENGINES)}, not {engine!r}")
        workers = _positive("MCPIPE_WORKERS", 1.0)
        if workers != int(workers):
            raise ValueError(f"MCPIPE_WORKERS should be a whole number, not {workers}")
        return cls(engine, int(workers), _positive("MCPIPE_CLIP_SECONDS", 120.0))


def decided(items: Items, work: Work, report: Report, progress: Path) -> Iterator[Packed]:
    """The records that ``work`` makes of items, in order; ``report`` counts those and the rejections.

    Verdicts are kept below ``progress``; what is kept there of an earlier run with the same settings, models and code
    is not computed again.

    Raises:
        ValueError, OSError: the models cannot be loaded, the disk is full or stored data is damaged.

    """
    machine = EngineSettings.of_environment()
    store = Store(progress / fingerprint(work, report.packages))
    places: dict[str, Path] = {}
    failures: dict[str, Rejection] = {}
    missing = list(_missing(items, store, places)) if store.folder.is_dir() else None
    if missing is None or missing:
        with ENGINES[machine.engine](work, machine.workers, machine.clip_seconds) as run:
            store.folder.mkdir(parents=True, exist_ok=True)
            if missing is None:
                missing = list(_missing(items, store, places))
            for key, failure in track(run(missing), len(missing), report.stage):
                if failure is not None:
                    failures[key] = failure
    for key, place in places.items():
        verdict = failures[key] if key in failures else load(place)
        if verdict is None:
            raise OSError(f"{place} is gone; run again")
        if isinstance(verdict, Rejection):
            report.drop(key, verdict.reason, verdict.detail, verdict.scores)
        else:
            report.keep(key)
            yield verdict
    store.prune(places.values())


def write_decided(  # noqa: PLR0913  one argument per part of a stage
    items: Items,
    work: Work,
    report: Report,
    out: Path,
    records_per_shard: int,
    complete: Callable[[Packed], Packed] | None = None,
) -> None:
    """Run ``work`` on all items and write the accepted records as shards, with ``report.json``, into ``out``.

    ``complete`` adds to an accepted record what only all records together determine. The folder appears whole or not
    at all; verdicts of an interrupted run are reused.

    Raises:
        ValueError, OSError: the models cannot be loaded, the disk is full or stored data is damaged.

    """
    records = decided(items, work, report, progress_of(out))
    with whole_folder(out) as folder:
        write_shards(map(complete, records) if complete else records, folder, records_per_shard)
        report.write(folder)


def kept(items: Iterable[tuple[str, T]], total: int, decide: Callable[[T], R], report: Report) -> Iterator[R]:
    """The records that ``decide`` makes of keyed items in this process, in order; for items other than clips.

    ``decide`` refuses an item by a `RejectionError`.
    """
    for key, item in track(items, total, report.stage):
        try:
            record = decide(item)
        except RejectionError as error:
            report.drop(key, error.reason, error.detail, error.rejection.scores)
            continue
        report.keep(key)
        yield record


def _missing(items: Items, store: Store, places: dict[str, Path]) -> Iterator[Job]:
    """Jobs for the items without a verdict; ``places`` learns where every verdict belongs."""
    for item in items:
        place = store.place(item.key, item.digest())
        places[item.key] = place
        if not holds(place):
            yield Job(item, place)


def _positive(name: str, default: float) -> float:
    text = os.environ.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} should be a positive number, not {text!r}")
    return value
