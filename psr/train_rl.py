"""Stage 3 of PSR from one seed: a fresh LoRA over the supervised adapter, with or without the pairwise reward."""

from pathlib import Path

from mcpipe.steps.pairwise_rewards import scorers_of_pairs
from mcpipe.train.rl.params import TrainRLParams
from mcpipe.train.rl.stage import RLTraining, write_rl
from psr.arms import arm_and_seed

MODELS: tuple[str, ...] = ("grounder", "dinov2", "dino", "reward_clip", "preference", "judge")
"""The models that reward and watch, in the order of their paths."""
PLAIN = "rl_plain"
"""The arm without the pairwise reward; its weight is 0 and the others stay as they are."""


def run(  # noqa: PLR0913  one argument per path
    prompts: Path, supervised: Path, generator: Path, grounder: Path, dinov2: Path, dino: Path, reward_clip: Path,
    preference: Path, judge: Path, model: Path, params: TrainRLParams,
) -> None:  # fmt: skip
    """Write the adapter that continues the supervised one, its curves, the scores of every image and a report.

    Raises:
        ValueError: the output's name is no arm and seed.
    """
    models = dict(zip(MODELS, (grounder, dinov2, dino, reward_clip, preference, judge), strict=True))
    arm, seed = arm_and_seed(model.name)
    rewards = params.rewards.model_copy(update={"identity": 0.0} if arm == PLAIN else {})
    own = params.model_copy(update={"seed": seed, "rewards": rewards})
    write_rl(RLTraining(prompts, supervised, generator, models, scorers_of_pairs, own), model)
