"""Curation against a naive script and against pure decoding: clips per second, CPU seconds per clip, peak memory.

    python benchmarks/curation.py [--chain 100 400] [--frames 100 2000] [--pool 40 240] [--json FILE]

Clips are those of the pipeline (``source.clips`` in params.yaml), good and bad ones alike, under new names until there
are enough. Every measurement is a process of its own and is made at two sizes: what a clip costs is the slope between
them, in which starting and loading models cancel out. The naive script does what people write first: it decodes every
frame of one clip after another and runs every model on every frame. CPU seconds hardly suffer from other work on the
machine; seconds do.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
NAIVE_CLIPS = (2, 8)
ENOUGH_SPEEDUP = 1.7


@dataclass(frozen=True)
class Cost:
    """Resources of a process and its children."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    """Peak memory of the largest process."""


@dataclass(frozen=True)
class Slope:
    """Cost of one more clip, from the costs of few and of many."""

    seconds: float
    cpu_seconds: float
    peak_kb: float
    start_seconds: float
    """Extrapolated time without clips."""


def main() -> None:
    """Measure and print; with ``--json`` also write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chain", type=int, nargs=2, default=(100, 400), help="clips through all stages")
    parser.add_argument("--frames", type=int, nargs=2, default=(100, 2000), help="clips through the first stage alone")
    parser.add_argument("--pool", type=int, nargs=2, default=(40, 240), help="clips with one and with two workers")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        {"naive": naive, "decode": decode}[options.measure[0]](Path(options.measure[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(Path(folder), tuple(options.chain), tuple(options.frames), tuple(options.pool))
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


def measured(folder: Path, chain: tuple[int, int], frames: tuple[int, int], pool: tuple[int, int]) -> dict[str, object]:
    """All figures."""
    own = [sys.executable, __file__, "--measure"]
    costs: dict[str, dict[int, Cost]] = {
        "decoding": {n: run("decoding", [*own, "decode", str(copies(folder, n))]) for n in chain},
        "naive": {n: run("naive", [*own, "naive", str(copies(folder, n))]) for n in NAIVE_CLIPS},
        "ours": {n: curated(folder, n, "inline", 1) for n in chain},
        "again": {n: curated(folder, n, "inline", 1) for n in chain},
        "one_worker": {n: curated(folder, n, "pool", 1) for n in pool},
        "two_workers": {n: curated(folder, n, "pool", 2) for n in pool},
        "frames": {n: run("frames", stage(copies(folder, n), folder / f"frames{n}")) for n in frames},
    }
    slopes = {name: slope(cost) for name, cost in costs.items()}
    cpu = {name: slopes[name].cpu_seconds for name in ("naive", "ours", "decoding", "again", "frames")}
    speedup = slopes["one_worker"].seconds / max(slopes["two_workers"].seconds, 1e-9)
    return {
        "cpu_seconds_per_clip": cpu,
        "clips_per_second": {name: 1 / max(cost.seconds, 1e-9) for name, cost in slopes.items()},
        "naive_over_ours": cpu["naive"] / max(cpu["ours"], 1e-9),
        "ours_over_decoding": cpu["ours"] / max(cpu["decoding"], 1e-9),
        "two_workers_over_one": speedup,
        "two_workers_are_enough": speedup >= ENOUGH_SPEEDUP,
        "peak_mb": {name: {str(n): cost.peak_mb for n, cost in sizes.items()} for name, sizes in costs.items()},
        "peak_kb_per_clip": {name: slopes[name].peak_kb for name in ("ours", "frames")},
        "start_seconds": {name: cost.start_seconds for name, cost in slopes.items()},
        "costs": {name: {str(n): asdict(cost) for n, cost in sizes.items()} for name, sizes in costs.items()},
    }


def slope(costs: dict[int, Cost]) -> Slope:
    """Cost of one more clip."""
    (few, small), (many, large) = sorted(costs.items())
    seconds, cpu, peak = (
        (getattr(large, name) - getattr(small, name)) / (many - few) for name in ("seconds", "cpu_seconds", "peak_mb")
    )
    return Slope(seconds, cpu, 1024 * peak, small.seconds - few * seconds)


def source() -> list[Path]:
    """The clips of the pipeline."""
    folder = ROOT / yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["source"]["clips"]
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if not files:
        sys.exit(f"no clip in {folder}; run `dvc repro world` first")
    return files


def copies(folder: Path, number: int) -> Path:
    """A number of clips under new names, as links; small numbers are spread evenly over all clips."""
    clips = folder / f"clips{number}"
    if not clips.is_dir():
        clips.mkdir(parents=True)
        files = source()
        for i, file in enumerate(islice(cycle(files[:: max(len(files) // number, 1)]), number)):
            (clips / f"{i:05d}{file.suffix}").symlink_to(file)
    return clips


def curated(folder: Path, number: int, engine: str, workers: int) -> Cost:
    """The cost of ``mcpipe curate``; a second time, of finding that nothing is left to do."""
    out = folder / f"{engine}{workers}-{number}"
    command = [sys.executable, "-m", "mcpipe.cli", "curate", str(copies(folder, number)), "--out", str(out)]
    return run(f"{engine} {workers}", command, MCPIPE_ENGINE=engine, MCPIPE_WORKERS=str(workers))


def stage(clips: Path, out: Path) -> list[str]:
    """The first stage alone, which holds the largest images."""
    return [sys.executable, "-m", "stages", "frames", str(clips), str(out)]


def run(name: str, command: list[str], **environment: str) -> Cost:
    """Cost of a command, its children included."""
    start = time.monotonic()
    settings = os.environ | {"OMP_NUM_THREADS": "1", "MCPIPE_LOG": "WARNING"} | environment
    process = subprocess.Popen(command, cwd=ROOT, env=settings, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed")
    cost = Cost(time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
    line = f"{name}: {cost.seconds:.1f} s, {cost.cpu_seconds:.1f} CPU s, {cost.peak_mb:.0f} MB  ({command[-1]})"
    print(line, file=sys.stderr, flush=True)
    return cost


def decode(folder: Path) -> None:
    """The limit: nothing but the two frames of every clip."""
    import av

    for file in sorted(folder.iterdir()):
        try:
            with av.open(str(file)) as container:
                stream = container.streams.video[0]
                length = stream.duration or container.duration * 1e-6 / stream.time_base
                middle = (stream.start_time or 0) + length // 2
                next(container.decode(stream)).to_ndarray(format="rgb24")
                container.seek(int(middle), stream=stream)
                frame = next(f for f in container.decode(stream) if f.pts is not None and f.pts >= middle)
                frame.to_ndarray(format="rgb24")
        except (av.error.FFmpegError, StopIteration, TypeError):
            continue


def naive(folder: Path) -> None:
    """Every model on every frame of one clip after another."""
    import av
    import torch

    from mcpipe.core.offline import stay_offline
    from mcpipe.curate.captions import CAPTION_INSTRUCTIONS
    from mcpipe.models.captioner import Qwen2_5VL
    from mcpipe.models.faces import InsightFaces
    from mcpipe.models.pose import UltralyticsPose
    from mcpipe.models.segmenter import Sam2

    stay_offline()
    torch.set_num_threads(1)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    models = {name: ROOT / path for name, path in settings["models"].items()}
    pose, segmenter = UltralyticsPose(models["pose"], settings["subjects"]["min_score"]), Sam2(models["segmenter"])
    faces = InsightFaces(models["faces"], 0.5, settings["identity"]["detection_size"])
    captioner = Qwen2_5VL(models["captioner"])
    for file in sorted(folder.iterdir()):
        try:
            with av.open(str(file)) as container:
                frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        except av.error.FFmpegError:
            continue
        for frame in frames:
            boxes = pose.people(frame).boxes
            segmenter.masks(frame, boxes)
            for x0, y0, x1, y1 in boxes.clip(0).astype(int):
                if x1 > x0 and y1 > y0:
                    faces.faces(frame[y0:y1, x0:x1])
        captioner.answer(
            [frames[0], frames[len(frames) // 2]], CAPTION_INSTRUCTIONS["people"].format(num_subjects=2),
            temperature=0.0, seed=0, max_tokens=settings["captions"]["max_tokens"],
        )  # fmt: skip


if __name__ == "__main__":
    main()
