"""Curation killed at random moments: equality of the final output, and work computed twice.

    python benchmarks/interruptions.py [--clips 24] [--kills 20] [--json FILE]

The real stages with the checkpoints of params.yaml, as ``mcpipe curate`` runs them. An undisturbed run comes first.
Then runs are killed with SIGKILL, each a random time after it has added a verdict, and the last one may finish. Should
a run finish before its time, its bytes are compared and another series begins, until all kills are done. A verdict that
is kept is never to be computed again: every entry of the progress folder is watched for being replaced.

Runs are forked from a process that has imported the libraries, so that importing does not take the kills.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from curation import ROOT, copies

sys.path.insert(0, str(ROOT))
os.environ["MCPIPE_ENGINE"] = "inline"
os.environ["OMP_NUM_THREADS"] = "1"

from mcpipe.cli.curate import SETTINGS, curate, read_settings
from mcpipe.core.offline import stay_offline
from mcpipe.execution.store import PROGRESS

LIBRARIES = (
    "av",
    "cv2",
    "torch",
    "ultralytics.models.yolo.pose",
    "sam2.sam2_image_predictor",
    "onnxruntime",
    "insightface.app",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.qwen2_5_vl.processing_qwen2_5_vl",
    "qwen_vl_utils",
)
"""Modules that the stages import to load their models."""
BETWEEN_LOOKS_S = 0.005
SPREAD = 1.2
"""Longest time after a run's first verdict until it is killed, in units of an even share of the work."""


def main() -> None:
    """Kill, finish, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.chdir(ROOT)
    stay_offline()
    for library in LIBRARIES:
        import_module(library)
    with tempfile.TemporaryDirectory() as folder:
        figures = interrupted(Path(folder), options.clips, options.kills)
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if figures["same_bytes"] and not figures["computed_again"] else 1)


def interrupted(folder: Path, clips: int, kills: int) -> dict[str, object]:
    """The figures of all series."""
    source, calm, out = copies(folder, clips), folder / "calm", folder / "out"
    start = time.monotonic()
    finish(begun(source, calm))
    length = time.monotonic() - start
    undisturbed, verdicts = content(calm), kept_in(calm)
    work_s = (max(verdicts.values()) - min(verdicts.values())) / 1e9
    moments = random.Random(0)
    kept: dict[Path, int] = {}
    killed = again = finished = 0
    same = True
    while killed < kills:
        process = begun(source, out)
        if adds_verdict(process, out, kept) and not ends_within(process, moments.uniform(0, SPREAD * work_s / kills)):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            killed += 1
            again += replaced(out, kept)
            print(f"kill {killed}: {len(kept)} of {len(verdicts)} verdicts kept", file=sys.stderr, flush=True)
        else:  # it is through, and has been waited for
            finished += 1
            again += replaced(out, kept)
            same &= content(out) == undisturbed
            shutil.rmtree(out)
            kept.clear()
    finish(begun(source, out))
    again += replaced(out, kept)
    return {
        "clips": clips,
        "verdicts": len(verdicts),
        "runs_killed": killed,
        "runs_finished": finished + 1,
        "undisturbed_seconds": length,
        "computed_again": again,
        "same_bytes": same and content(out) == undisturbed,
    }


def begun(clips: Path, out: Path) -> int:
    """The number of a process that curates."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        curate(clips, out, read_settings(ROOT / SETTINGS, []))
        status = 0
    finally:
        os._exit(status)


def finish(process: int) -> None:
    """Wait for a process to end well."""
    _, status = os.waitpid(process, 0)
    if status:
        sys.exit(f"a run ended with status {os.waitstatus_to_exitcode(status)}")


def adds_verdict(process: int, out: Path, kept: dict[Path, int]) -> bool:
    """Wait for a process to add a verdict; false if it ended first."""
    while not kept_in(out).keys() - kept.keys():
        if ends_within(process, BETWEEN_LOOKS_S):
            return False
    return True


def ends_within(process: int, seconds: float) -> bool:
    """Whether a process ends well within a time; then it has been waited for."""
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            if status:
                sys.exit(f"a run ended with status {os.waitstatus_to_exitcode(status)}")
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(BETWEEN_LOOKS_S)


def replaced(out: Path, kept: dict[Path, int]) -> int:
    """How many verdicts that were kept before have been written again; ``kept`` learns of the new ones."""
    remaining = kept_in(out)
    number = sum(file in kept and kept[file] != written for file, written in remaining.items())
    kept.update(remaining)
    return number


def kept_in(out: Path) -> dict[Path, int]:
    """Every verdict that is kept, with the time in nanoseconds at which it was written."""
    files = (file for file in (out / PROGRESS).rglob("*") if file.is_file() and not file.name.startswith("."))
    return {file: file.stat().st_mtime_ns for file in files}


def content(out: Path) -> dict[Path, bytes]:
    """Everything that a run writes but its progress."""
    files = (file for file in sorted(out.rglob("*")) if file.is_file() and PROGRESS not in file.parts)
    return {file.relative_to(out): file.read_bytes() for file in files}


if __name__ == "__main__":
    main()
