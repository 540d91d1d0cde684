"""Stage 3 on objects: each is located by its own phrase and compared in DINOv2's space."""

from pathlib import Path

from mcpipe.steps.object_rewards import ObjectRLParams, scorers_of_objects
from mcpipe.train.rl.stage import RLTraining, write_rl

MODELS: tuple[str, ...] = ("grounder", "segmenter", "dinov2", "dino", "reward_clip", "reward_hps")
"""The models that reward and watch, in the order of their paths."""


def run(  # noqa: PLR0913  one argument per path
    prompts: Path, train_multi: Path, generator: Path, grounder: Path, segmenter: Path, dinov2: Path, dino: Path,
    reward_clip: Path, reward_hps: Path, model: Path, params: ObjectRLParams,
) -> None:  # fmt: skip
    """Write the adapter that continues stage 2, its curves, the scores of every image, previews and a report."""
    models = dict(zip(MODELS, (grounder, segmenter, dinov2, dino, reward_clip, reward_hps), strict=True))
    write_rl(RLTraining(prompts, train_multi, generator, models, scorers_of_objects, params), model)
