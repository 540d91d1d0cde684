"""``mcpipe curate`` killed at random moments: what comes out in the end, and what was computed twice.

    python benchmarks/interruptions.py [--clips 12] [--kills 20] [--json FILE]

An undisturbed run comes first; it also says how long a run takes. Then runs are killed with SIGKILL, each after a
random part of that time, until the last one may finish. A verdict that is kept is never computed again, so every entry
of the progress folder is watched for being replaced.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from curation import ROOT, copies

PROGRESS = ".progress"


def main() -> None:
    """Kill, finish, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = interrupted(Path(folder), options.clips, options.kills)
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(0 if figures["same_bytes"] and not figures["computed_again"] else 1)


def interrupted(folder: Path, clips: int, kills: int) -> dict[str, object]:
    """The figures of one series."""
    source, calm, out = copies(folder / "clips", clips), folder / "calm", folder / "out"
    start = time.monotonic()
    begun(source, calm).wait()
    length = time.monotonic() - start
    moments, killed, again = random.Random(0), 0, 0
    kept: dict[Path, int] = {}
    for _ in range(kills):
        process = begun(source, out)
        try:
            process.wait(moments.uniform(0, length))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        again += replaced(out, kept)
    if begun(source, out).wait():
        sys.exit("the last run failed")
    again += replaced(out, kept)
    return {
        "clips": clips,
        "runs_killed": killed,
        "undisturbed_seconds": length,
        "computed_again": again,
        "same_bytes": content(out) == content(calm),
    }


def begun(clips: Path, out: Path) -> "subprocess.Popen[bytes]":
    """A run that has been started."""
    command = [sys.executable, "-m", "mcpipe.cli", "curate", str(clips), "--out", str(out)]
    settings = os.environ | {"MCPIPE_LOG": "WARNING"}
    return subprocess.Popen(command, cwd=ROOT, env=settings, stdout=subprocess.DEVNULL)


def replaced(out: Path, kept: dict[Path, int]) -> int:
    """How many verdicts that were kept before have been written again; ``kept`` learns of the new ones."""
    found = {
        file: file.stat().st_mtime_ns
        for file in (out / PROGRESS).rglob("*")
        if file.is_file() and not file.name.startswith(".")
    }
    number = sum(file in kept and kept[file] != written for file, written in found.items())
    kept.update(found)
    return number


def content(out: Path) -> dict[Path, bytes]:
    """Everything that a run writes but its progress."""
    files = (file for file in sorted(out.rglob("*")) if file.is_file() and PROGRESS not in file.parts)
    return {file.relative_to(out): file.read_bytes() for file in files}


if __name__ == "__main__":
    main()
