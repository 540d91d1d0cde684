"""Work that needs no model: what the engine is tested with, also from processes of its own."""

import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from processes import PATIENCE_S

from mcpipe.core.params import Params
from mcpipe.core.records import Record, RejectionError
from mcpipe.core.report import Report
from mcpipe.core.shards import StoredItems, whole_folder, write_shards
from mcpipe.execution.engine import decided
from mcpipe.execution.store import progress_of

SECONDS = 0.01
"""What an item of `two_stages` takes; its processes are killed within twelve items."""


class CheapParams(Params):
    factor: int
    records_per_shard: int


@dataclass(frozen=True)
class Number:
    """An item whose key also says what happens to it."""

    key: str
    value: int = 0

    def digest(self):
        return str(self.value)

    def inputs(self):
        return [self]


@dataclass(frozen=True)
class Cheap:
    """Multiplies numbers; writes into a log what it does."""

    params: CheapParams
    model: Path
    log: str
    seconds: float = 0.0

    def load(self):
        if not self.model.is_file():
            raise FileNotFoundError(f"no model {self.model}")
        append_line(self.log, "load")
        return partial(product, work=self)


@dataclass(frozen=True)
class Placed(Cheap):
    """Notes in a second log which node of Ray did it, by the process of its raylet."""

    def load(self):
        return partial(placed, decide=super().load(), log=f"{self.log}.nodes")


def placed(item, decide, log):
    append_line(log, os.environ.get("RAY_RAYLET_PID", "none"))
    return decide(item)


def append_line(log, line):
    with Path(log).open("a", encoding="utf-8") as lines:
        lines.write(line + "\n")


def product(item, work):
    append_line(work.log, item.key)
    time.sleep(work.seconds)
    if item.key.startswith("boom"):
        raise RuntimeError("no\nnumber")
    if item.key.startswith("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if item.key.startswith("hang"):
        while True:
            time.sleep(0.01)
    value = item.value if isinstance(item, Number) else int(item.arrays["numbers"][0])
    if value % 5 == 0:
        raise RejectionError("fifth", f"{value}", {"value": value})
    numbers = np.random.default_rng(value).integers(0, 99, 2000) * work.params.factor
    return Record(item.key, {"value": value}, {"numbers": np.concatenate([[value], numbers])})


def write(work, items, out):
    """One stage."""
    report = Report("cheap", ("numpy",))
    with whole_folder(out) as folder:
        write_shards(decided(items, work, report, progress_of(out)), folder, work.params.records_per_shard)
        report.write(folder)
    return report


def content(folder):
    return {file.relative_to(folder): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def two_stages(folder, number):
    """A run that takes a while: numbers, then the numbers that are left."""
    folder.mkdir(exist_ok=True)
    model = folder / "model"
    model.write_text("weights", encoding="utf-8")
    params = CheapParams(factor=3, records_per_shard=7)
    work = Cheap(params, model, str(folder / "log"), seconds=SECONDS)
    write(work, [Number(f"n{i:03d}", i) for i in range(number)], folder / "one")
    write(work, StoredItems((folder / "one", Record)), folder / "two")


def lines(folder):
    """What the log of `two_stages` says was done."""
    log = folder / "log"
    return log.read_text(encoding="utf-8").split() if log.exists() else []


def killed_runs(folder, number, kills):
    """Start `two_stages` and kill it at random moments, then let it end; returns how often it was killed."""
    moments, deadline, killed = random.Random(4), time.monotonic() + PATIENCE_S, 0
    while killed < kills:
        before = lines(folder)
        process = get_context("fork").Process(target=two_stages, args=(folder, number))
        process.start()
        # Counted from the first sign of work, so that a slow start does not take all the kills.
        while lines(folder) == before and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.join(moments.uniform(0, 12 * SECONDS))
        if not process.is_alive():
            break
        process.kill()
        process.join(PATIENCE_S)
        killed += 1
    two_stages(folder, number)
    return killed


if __name__ == "__main__":
    print(killed_runs(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))  # noqa: T201
