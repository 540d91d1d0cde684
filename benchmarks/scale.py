"""How storage grows: records from 1,000 to 100,000 in tar shards, and the same files loose, with straight-line fits.

    python benchmarks/scale.py [--records 1000 10000 100000] [--loose 1000 4000] [--json FILE]

A record has what a small sample has, an image (16 x 16, random, so that it does not compress), 64 numbers and a
description: three members of 1.3 KB together, 3.5 KB in a tar. Measured are time and peak memory of writing, reading
and a fully shuffled pass (through `mcpipe.core.shards`), of ``dvc add``, of ``dvc status`` with nothing changed, and of
``dvc push`` to a folder, twice. Loose files hold the same members, one file each. Every measurement is a process of its
own, and starting it is part of the figure; the lines take that out. CPU seconds do not suffer from other work on the
machine, seconds do.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mcpipe.core.packing import pack
from mcpipe.core.records import Record
from mcpipe.core.shards import StoredItems, read_shards, write_shards

PER_SHARD = 1000
SIDE_PX = 16
NUMBERS = 64


@dataclass
class Cost:
    """Resources of a process and its children."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


@dataclass
class Line:
    """A straight line through the measurements: cost = start + slope x records."""

    start: float
    per_million: float
    fit: float
    """Part of the variance that it explains, R squared; 1 where two points make the line."""


def main() -> None:
    """Measure and print; with ``--json`` also write the figures."""
    parser = argparse.ArgumentParser(description="How storage grows with the number of records.")
    parser.add_argument("--records", type=int, nargs="+", default=(1_000, 10_000, 30_000, 100_000))
    parser.add_argument("--loose", type=int, nargs="+", default=(1_000, 2_000, 4_000), help="records as loose files")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, folder, number = options.measure
        {"write": write, "read": read, "shuffle": shuffle, "loose": loose}[name](Path(folder), int(number))
        return
    with tempfile.TemporaryDirectory() as folder:
        shards = {n: in_shards(Path(folder) / f"shards{n}", n) for n in options.records}
        files = {n: as_files(Path(folder) / f"files{n}", n) for n in options.loose}
    figures = {"per_shard": PER_SHARD, "shards": summary(shards), "loose": summary(files)}
    print(table("tar shards", shards) + table("loose files", files))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def in_shards(folder: Path, number: int) -> dict[str, Cost]:
    """Costs of all operations on a number of records in shards."""
    data = folder / "data"
    costs = {name: own(name, data, number) for name in ("write", "read", "shuffle")}
    return costs | dvc_costs(folder)


def as_files(folder: Path, number: int) -> dict[str, Cost]:
    """The operations on the same members as loose files."""
    return {"write": own("loose", folder / "data", number)} | dvc_costs(folder)


def dvc_costs(folder: Path) -> dict[str, Cost]:
    """Tracking, looking and pushing in a repository whose remote is a folder beside it."""
    dvc = [sys.executable, "-m", "dvc"]
    run([*dvc, "init", "-q", "--no-scm"], folder)
    run([*dvc, "remote", "add", "-q", "-d", "beside", str(folder.with_suffix(".remote"))], folder)
    return {
        "dvc_add": run([*dvc, "add", "-q", "data"], folder),
        "dvc_status": run([*dvc, "status", "-q"], folder),
        "dvc_push": run([*dvc, "push", "-q"], folder),
        "dvc_push_again": run([*dvc, "push", "-q"], folder),
    }


def own(name: str, folder: Path, number: int) -> Cost:
    """Cost of one of mcpipe's operations."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return run([sys.executable, __file__, "--measure", name, str(folder), str(number)], Path.cwd())


def run(command: list[str], folder: Path) -> Cost:
    """Cost of a command, its children included."""
    start = time.monotonic()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "true"}
    process = subprocess.Popen(command, cwd=folder, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return Cost(time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def summary(measured: dict[int, dict[str, Cost]]) -> dict[str, object]:
    """The measurements and, for each operation, how CPU time and memory grow."""
    sizes = sorted(measured)
    operations = list(measured[sizes[0]])
    return {
        "costs": {n: {name: asdict(cost) for name, cost in measured[n].items()} for n in sizes},
        "cpu_seconds": {
            name: asdict(line(sizes, [measured[n][name].cpu_seconds for n in sizes])) for name in operations
        },
        "peak_mb": {name: asdict(line(sizes, [measured[n][name].peak_mb for n in sizes])) for name in operations},
    }


def table(title: str, measured: dict[int, dict[str, Cost]]) -> str:
    """Markdown: CPU seconds and peak memory by operation and size, and the lines through the CPU seconds."""
    sizes = sorted(measured)
    lines = [
        f"| {title} | {' | '.join(f'{n:,}' for n in sizes)} | CPU s per million | R2 |",
        "|---" * (len(sizes) + 3) + "|",
    ]
    for name in measured[sizes[0]]:
        costs = [measured[n][name] for n in sizes]
        grows = line(sizes, [cost.cpu_seconds for cost in costs])
        cells = " | ".join(f"{cost.cpu_seconds:.1f} s, {cost.peak_mb:.0f} MB" for cost in costs)
        lines.append(f"| {name} | {cells} | {grows.per_million:.0f} | {grows.fit:.3f} |")
    return "\n".join(lines) + "\n\n"


def line(sizes: list[int], values: list[float]) -> Line:
    """The least-squares line."""
    if len(sizes) < 2:
        return Line(values[0], 0.0, 1.0)
    slope, start = np.polyfit(sizes, values, 1)
    left = np.square(np.array(values) - (start + slope * np.array(sizes))).sum()
    spread = np.square(np.array(values) - np.mean(values)).sum()
    return Line(float(start), float(slope * 1e6), float(1 - left / spread) if spread else 1.0)


def synthetic(number: int) -> Iterator[Record]:
    """Records in the order of their keys."""
    noise = np.random.default_rng(0)
    for i in range(number):
        picture = noise.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
        numbers = noise.normal(size=NUMBERS).astype(np.float32)
        yield Record(f"clip-{i:08d}", {"clip": f"{i}.mp4"}, {"picture": picture, "embedding": numbers})


def write(folder: Path, number: int) -> None:
    """Into shards."""
    write_shards(synthetic(number), folder, PER_SHARD)


def read(folder: Path, number: int) -> None:
    """All of it, decoded."""
    assert sum(1 for _ in read_shards(folder)) == number


def shuffle(folder: Path, number: int) -> None:
    """All of it in a random order, by the places of the records."""
    rows = list(StoredItems((folder, Record)))
    random.Random(0).shuffle(rows)
    assert sum(len(row.inputs()) for row in rows) == number


def loose(folder: Path, number: int) -> None:
    """One file per member."""
    folder.mkdir()
    for record in synthetic(number):
        packed = pack(record)
        for name, content in packed.members.items():
            (folder / f"{packed.key}.{name}").write_bytes(content)


if __name__ == "__main__":
    main()
