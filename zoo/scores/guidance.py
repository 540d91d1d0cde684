"""How guidance weighs references and words: ``python -m zoo.scores.guidance --seed N``.

Images of new people from the same noise at several guidance scales, with the right references and with other people's.
"""

import sys
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from mcpipe.core.params import read_params
from mcpipe.core.progress import track
from mcpipe.flux.backbone import FluxPipeline, load_generator
from mcpipe.flux.sampler import Requests, generate
from mcpipe.models.faces import InsightFaces
from mcpipe.models.scorers.clip import Clip
from mcpipe.steps.generate import GenerateParams
from zoo.scores.draw import GENERATED
from zoo.scores.faces import load
from zoo.scores.gates import read_options
from zoo.scores.references import BATCH, SETTINGS, Tally, Task, tasks

SCALES = (1.0, 1.5, 2.0, 3.0, 4.0)
NUM_PAIRS = 48
COLUMNS = ("guidance", "Face-Sim", "other people's", "lift", "own - cross", "located", "CLIP-T")


def main(arguments: Sequence[str]) -> int:
    """Draw, score and print the table; returns the exit status."""
    options = read_options(arguments, "guidance", "Guidance and references.")
    faces, clip = load(options.zoo, "faces", "puppet"), Clip(options.zoo / "clip")
    given = list(tasks(faces, options.seed, 2, NUM_PAIRS))
    table = Table(*COLUMNS, title=f"{NUM_PAIRS} pairs of new people, world {options.seed}")
    pipeline = load_generator(options.zoo / "generator")
    for scale in SCALES:
        table.add_row(*row(pipeline, given, (faces, clip), options.seed, scale))
    Console(width=100).print(table)
    return 0


def row(
    pipeline: FluxPipeline, given: Sequence[Task], scorers: tuple[InsightFaces, Clip], seed: int, scale: float
) -> list[str]:
    """The cells of one guidance scale."""
    faces, clip = scorers
    sample = read_params(SETTINGS, "generate", GenerateParams).sample.model_copy(update={"guidance": scale})
    own = [task.references for task in given]
    prompts, seeds = [task.prompt for task in given], [1000 * seed + number for number in range(len(given))]
    tallies, clip_t = {}, 0.0
    for kind, references in (("right", own), ("others", [*own[1:], own[0]])):
        requests = Requests(prompts, references, seeds, sample, GENERATED, BATCH)
        images = list(track(generate(pipeline, requests), len(given), f"guidance {scale:g}, {kind} references"))
        tallies[kind] = Tally()
        for task, image in zip(given, images, strict=True):
            tallies[kind].add(task, image, faces)
        if kind == "right":
            clip_t = float((clip.pictures(images) * clip.texts(prompts)).sum(axis=1).mean())
    right, others = tallies["right"], tallies["others"]
    face_sim, of_others = float(np.mean(right.face_sim)), float(np.mean(others.face_sim))
    apart = float(np.mean(right.own_minus_cross or [np.nan]))
    values = (face_sim, of_others, face_sim - of_others, apart, right.num_located / right.num_people, clip_t)
    return [f"{scale:g}", *(f"{value:.3f}" for value in values)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
