"""Rendering the puppet world: seconds of one core per clip, against an earlier revision, and one worker against two.

    python benchmarks/world.py [--against REVISION] [--clips 12] [--rounds 3] [--json FILE]

Both revisions render the same clips of the default run in turn, each round in a process of its own; the fastest round
counts, because other work on the machine makes only slower ones. The files must be the same, byte by byte. Workers are
those of the stage ``world``; what counts there is the slope between few and many clips, without the start.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
BASELINE = "c4d79de"
"""The revision before the world was made faster."""

FAST_ENOUGH = 2.0
POOL_CLIPS = (8, 40)


def main() -> None:
    """Measure and print; with ``--json`` also write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", default=BASELINE, help="revision to compare with")
    parser.add_argument("--clips", type=int, default=12, help="clips per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(rendered(options.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = compared(Path(folder), options.against, options.clips, options.rounds) | side_by_side(Path(folder))
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


def compared(folder: Path, revision: str, clips: int, rounds: int) -> dict[str, object]:
    """CPU seconds per clip of an earlier revision and of this one."""
    trees = {revision: unpacked(folder / "then", revision), "now": ROOT}
    seconds: dict[str, list[float]] = {name: [] for name in trees}
    digests: dict[str, str] = {}
    for _ in range(rounds):
        for name, tree in trees.items():
            measured = json.loads(run([sys.executable, __file__, "--measure", str(clips)], tree))
            seconds[name].append(measured["cpu_seconds"] / clips)
            digests[name] = measured["digest"]
    best = {name: min(values) for name, values in seconds.items()}
    ratio = best[revision] / best["now"]
    return {
        "cpu_seconds_per_clip": best,
        "clips_per_second_of_one_core": {name: 1 / value for name, value in best.items()},
        "times_as_fast": ratio,
        "fast_enough": ratio >= FAST_ENOUGH,
        "same_bytes": len(set(digests.values())) == 1,
    }


def rendered(clips: int) -> dict[str, object]:
    """Render the first clips of the default run with the code on the path; CPU seconds and a digest of the files."""
    import cv2

    from mcpipe.core.params import read_params
    from mcpipe.world.clips import WorldParams, clip_specs, write_clip

    cv2.setNumThreads(1)
    params = read_params(Path("params.yaml"), "world", WorldParams)
    first, *specs = clip_specs(params)[: clips + 1]
    with tempfile.TemporaryDirectory() as folder:
        write_clip(Path(folder), first, params)  # imports, tables and encoders are ready
        start = time.process_time()
        files = [write_clip(Path(folder), spec, params).file for spec in specs]
        seconds = time.process_time() - start
        content = b"".join((Path(folder) / file).read_bytes() for file in files)
    return {"cpu_seconds": seconds, "digest": hashlib.sha256(content).hexdigest()}


def side_by_side(folder: Path) -> dict[str, object]:
    """Clips per second of the stage with one worker and with two."""
    rates = {}
    for workers in (1, 2):
        few, many = (stage_seconds(folder / f"{workers}-{clips}", clips, workers) for clips in POOL_CLIPS)
        rates[workers] = (POOL_CLIPS[1] - POOL_CLIPS[0]) / max(many - few, 1e-9)
    return {
        "clips_per_second_of_the_stage": {str(workers): rate for workers, rate in rates.items()},
        "two_workers_over_one": rates[2] / rates[1],
    }


def stage_seconds(folder: Path, clips: int, workers: int) -> float:
    """Seconds that the stage takes for a number of good clips."""
    folder.mkdir()
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings["world"] |= {"good_clips": clips, "bad_clips_per_kind": 0, "faces": 0}
    (folder / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    start = time.monotonic()
    run([sys.executable, "-m", "stages", "world", "clips", "faces", "truth"], folder, MCPIPE_WORKERS=str(workers))
    return time.monotonic() - start


def run(command: list[str], folder: Path, **environment: str) -> str:
    """Output of a command in a folder, with the folder's code if it has any, otherwise with this revision's."""
    code = folder if (folder / "mcpipe").is_dir() else ROOT
    settings = os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "MCPIPE_LOG": "WARNING"} | environment
    done = subprocess.run(command, cwd=folder, env=settings, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed in {folder}")
    return done.stdout


def unpacked(folder: Path, revision: str) -> Path:
    """The code of an earlier revision."""
    folder.mkdir()
    command = ["git", "-C", str(ROOT), "archive", revision, "mcpipe", "params.yaml"]
    packed = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if packed.returncode:
        sys.exit(f"no revision {revision}; name one that this repository holds with --against")
    with tarfile.open(fileobj=BytesIO(packed.stdout), encoding="utf-8") as archive:
        archive.extractall(folder, filter="data")
    return folder


if __name__ == "__main__":
    main()
