"""Images of every arm for the same prompts from the same noise, side by side."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
from PIL import Image

from mcpipe.core.schemas.benchmark import GeneratedImage, PairPrompt, PoolFace
from mcpipe.core.shards import read_shards
from mcpipe.report.images import contact_sheet
from studies.plan import Arm, Experiment, StudyPlan
from studies.trials import Trial

PAIRS = "data/pairs"
TILE_PX, GAP_PX = 112, 4


def images_path(arm: Arm) -> str:
    """The folder with an arm's images."""
    return f"data/images/{arm.evaluated}"


def is_shown(plan: StudyPlan, experiment: Experiment) -> bool:
    """Whether an experiment's images are shown: those of the first seed and its first drawing."""
    return (experiment.seed, experiment.drawing) == (plan.seeds[0], 0)


def images(plan: StudyPlan, trials: Sequence[Trial], num_prompts: int) -> Image.Image:
    """A row per prompt: the references, then the image of every arm in the plan's order.

    The prompts are the first ones of the benchmark, whose order has nothing to do with the images.
    """
    exported = [trial for trial in trials if is_shown(plan, trial.experiment)]
    pairs = exported[0].folder / PAIRS
    faces = {face.key: face.reference for face in read_shards(pairs / "faces", PoolFace)}
    prompts = list(islice(read_shards(pairs / "bench", PairPrompt), num_prompts))
    keys = {prompt.key for prompt in prompts}
    arms: list[dict[str, np.ndarray]] = [
        {drawn.key: drawn.image for drawn in read_shards(trial.folder / images_path(trial.arm), GeneratedImage)
         if drawn.key in keys}
        for trial in exported
    ]  # fmt: skip
    rows = [[faces[name] for name in prompt.names] + [arm[prompt.key] for arm in arms] for prompt in prompts]
    return contact_sheet(rows, TILE_PX, GAP_PX)
