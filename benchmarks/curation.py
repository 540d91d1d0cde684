"""Curation against a naive script and against pure decoding: clips per second, CPU seconds per clip, peak memory.

    python benchmarks/curation.py [--clips 24] [--many 100 2000] [--json FILE]

Clips are those of the pipeline (``source.clips`` in params.yaml), under new names until there are enough. Every
measurement is a process of its own. The naive script does what people write first: it loads the models, decodes every
frame of one clip after another and runs every model on every frame. It is measured on a few clips, because it is slow.
CPU seconds do not suffer from other work on the machine; seconds do.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
NAIVE_CLIPS = 3
WARM_CLIPS = 2
"""A run of so many clips tells what starting costs; it is subtracted from longer runs."""


@dataclass
class Cost:
    """What a process and its children took."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    """Of the largest process."""


def main() -> None:
    """Measure and print; with ``--json`` also write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--many", type=int, nargs=2, default=(100, 2000), help="sizes between which memory is flat")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        {"naive": naive, "decode": decode}[options.measure[0]](Path(options.measure[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(Path(folder), options.clips, options.many)
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


def measured(folder: Path, clips: int, many: tuple[int, int]) -> dict[str, object]:
    """All figures."""
    full, warm, few = (copies(folder / str(n), n) for n in (clips, WARM_CLIPS, NAIVE_CLIPS))
    own = [sys.executable, __file__, "--measure"]
    costs = {
        "decode": run([*own, "decode", str(full)]),
        "decode_start": run([*own, "decode", str(warm)]),
        "naive": run([*own, "naive", str(few)]),
        "inline": curated(folder, full, "inline", 1),
        "inline_start": curated(folder, warm, "inline", 1),
        "again": curated(folder, full, "inline", 1, fresh=False),
        "pool_1": curated(folder, full, "pool", 1),
        "pool_1_start": curated(folder, warm, "pool", 1),
        "pool_2": curated(folder, full, "pool", 2),
        "pool_2_start": curated(folder, warm, "pool", 2),
    }
    memory = {n: run(stage(copies(folder / f"many{n}", n), folder / f"frames{n}")).peak_mb for n in many}

    def per_clip(name: str) -> Cost:
        long, start = costs[name], costs[f"{name}_start"]
        num = clips - WARM_CLIPS
        return Cost((long.seconds - start.seconds) / num, (long.cpu_seconds - start.cpu_seconds) / num, long.peak_mb)

    ours, limit, script = per_clip("inline"), per_clip("decode"), costs["naive"]
    return {
        "clips": clips,
        "clips_per_second": {name: 1 / max(per_clip(name).seconds, 1e-9) for name in ("inline", "pool_1", "pool_2")},
        "cpu_seconds_per_clip": {
            "naive_with_start": script.cpu_seconds / NAIVE_CLIPS,
            "ours": ours.cpu_seconds,
            "decoding": limit.cpu_seconds,
        },
        "naive_over_ours_cpu": script.cpu_seconds / NAIVE_CLIPS / max(ours.cpu_seconds, 1e-9),
        "ours_over_decoding_cpu": ours.cpu_seconds / max(limit.cpu_seconds, 1e-9),
        "two_workers_over_one": per_clip("pool_1").seconds / max(per_clip("pool_2").seconds, 1e-9),
        "again_cpu_seconds_per_clip": costs["again"].cpu_seconds / clips,
        "peak_mb": {"naive": script.peak_mb, "ours": ours.peak_mb} | {f"frames_{n}": mb for n, mb in memory.items()},
        "costs": {name: asdict(cost) for name, cost in costs.items()},
    }


def source() -> list[Path]:
    """The clips of the pipeline."""
    folder = ROOT / yaml.safe_load((ROOT / "params.yaml").read_text())["source"]["clips"]
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    if not found:
        sys.exit(f"no clip in {folder}; run `dvc repro world` first")
    return found


def copies(folder: Path, number: int) -> Path:
    """So many clips under names of their own, as links."""
    folder.mkdir(parents=True)
    for i, file in enumerate(islice(cycle(source()), number)):
        (folder / f"{i:05d}{file.suffix}").symlink_to(file)
    return folder


def curated(folder: Path, clips: Path, engine: str, workers: int, *, fresh: bool = True) -> Cost:
    """The cost of ``mcpipe curate``."""
    out = folder / "out"
    if fresh:
        shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "mcpipe.cli", "curate", str(clips), "--out", str(out)]
    return run(command, MCPIPE_ENGINE=engine, MCPIPE_WORKERS=str(workers))


def stage(clips: Path, out: Path) -> list[str]:
    """The first stage alone, which holds the largest pictures."""
    return [sys.executable, "-m", "stages", "frames", str(clips), str(out)]


def run(command: list[str], **environment: str) -> Cost:
    """What a command costs, its children included."""
    start = time.monotonic()
    settings = os.environ | {"OMP_NUM_THREADS": "1", "MCPIPE_LOG": "WARNING"} | environment
    process = subprocess.Popen(command, cwd=ROOT, env=settings, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return Cost(time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


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

    from mcpipe.curate.captions import CAPTION_INSTRUCTION
    from mcpipe.models.captioner import Qwen2_5VL
    from mcpipe.models.faces import InsightFaces
    from mcpipe.models.pose import UltralyticsPose
    from mcpipe.models.segmenter import Sam2
    from mcpipe.offline import stay_offline

    stay_offline()
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
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
            [frames[0], frames[len(frames) // 2]], CAPTION_INSTRUCTION.format(num_subjects=2),
            temperature=0.0, seed=0, max_tokens=settings["captions"]["max_tokens"],
        )  # fmt: skip


if __name__ == "__main__":
    main()
