"""Re-measure the zoo: ``python -m zoo.scores --seed N [--only NAME...] [--zoo DIR]``.

Prints a table and writes scores.json and a contact sheet of the generator. With ``--only`` scores.json stays as it is.
"""

import argparse
import importlib
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mcpipe.core.errors import one_line
from mcpipe.core.offline import stay_offline
from zoo.scores.draw import Job
from zoo.scores.figures import Figure, as_json, missed_bars, score_table

MEASURES = {
    "pose": "pose.measure",
    "segmenter": "segmenter.measure",
    "faces": "faces.measure",
    "faces_heldout": "faces.measure_heldout",
    "captioner": "captioner.measure",
    "judge": "judge.measure",
    "generator": "generator.measure",
    "inpainter": "inpainter.measure",
    "sdxl": "sdxl.measure",
    "clip": "likeness.measure_clip",
    "clip_reward": "likeness.measure_clip_reward",
    "dino": "likeness.measure_dino",
    "dinov2": "likeness.measure_dinov2",
    "hps": "likeness.measure_hps",
    "hps_reward": "likeness.measure_hps_reward",
    "hpsv3": "likeness.measure_hpsv3",
    "grounder": "grounder.measure",
}
"""Checkpoints and what measures each, imported late: every one brings a library of its own."""

SCORES, SHEET = "scores.json", "scores.png"
TABLE_WIDTH = 120
logger = logging.getLogger("zoo")


def main(arguments: Sequence[str]) -> int:
    """Measure the checkpoints named by the arguments; returns the exit status: 1 if a checkpoint cannot be measured."""
    stay_offline()
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    for ours in ("zoo", "mcpipe"):
        logging.getLogger(ours).setLevel(logging.INFO)
    options = _parser().parse_args(arguments)
    out = options.out or options.zoo
    names = options.only or list(MEASURES)
    scores = measured(names, Job(options.zoo, options.seed, out / SHEET))
    Console(width=TABLE_WIDTH).print(score_table(scores, options.seed))
    unmeasured = [name for name in names if name not in scores]
    if not options.only:
        (out / SCORES).write_text(
            json.dumps(as_json(scores, options.seed, unmeasured), indent=1) + "\n", encoding="utf-8"
        )
    return int(bool(unmeasured) or (options.strict and bool(missed_bars(scores))))


def measured(names: Sequence[str], job: Job) -> dict[str, list[Figure]]:
    """The figures of every checkpoint that can be measured; a line in the log for every other."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    scores = {}
    for name in names:
        module, function = MEASURES[name].split(".")
        try:
            if not (job.zoo / name).is_dir():
                raise FileNotFoundError(f"no checkpoint folder {job.zoo / name}; build it with make zoo")
            scores[name] = getattr(importlib.import_module(f"zoo.scores.{module}"), function)(job)
        except (ValueError, OSError) as error:
            logger.log(logging.ERROR, "error: %s", one_line(error, name))
    return scores


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zoo.scores", description="Measure the zoo on a new world.")
    parser.add_argument("--seed", type=int, required=True, help="of the world to measure on")
    parser.add_argument("--only", nargs="+", default=[], choices=list(MEASURES), help="some checkpoints only")
    parser.add_argument("--zoo", type=Path, default=Path("zoo"), help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, help=f"folder of {SCORES} and {SHEET}; that of the checkpoints if left out")
    parser.add_argument("--strict", action="store_true", help="exit with status 1 if a bar is missed")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
