"""Settings of stage 3."""

from pydantic import Field, model_validator

from mcpipe.objectives.advantage import Aggregate
from mcpipe.objectives.sde import window_start
from mcpipe.params import Params


class SdeParams(Params):
    """How a group is drawn."""

    num_steps: int = Field(ge=2)
    shift: float = Field(gt=0)
    guidance: float = Field(ge=0)
    eta: float = Field(gt=0)
    """Strength of the noise in stochastic steps (Flow-GRPO)."""
    group_size: int = Field(ge=2)
    window_size: int = Field(ge=1)
    """Stochastic steps of a trajectory."""
    move_every: int = Field(ge=1)
    """Iterations after which the window moves."""
    stride: int = Field(ge=0)
    """Steps by which it moves."""


class UpdateParams(Params):
    """How a group is learned from."""

    samples_per_update: int = Field(ge=1)
    """Samples of every group in one optimiser step; divides the group size."""
    clip_low: float = Field(gt=0, lt=1)
    clip_high: float = Field(gt=0)
    aggregate: Aggregate
    max_advantage: float = Field(gt=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)


class RewardWeights(Params):
    """Weights of the rewards."""

    text: float = Field(ge=0)
    aesthetic: float = Field(ge=0)
    identity: float = Field(ge=0)


class FaceParams(Params):
    """How faces are looked for in generated pictures."""

    min_score: float = Field(ge=0, le=1)
    """Certainty of a detection."""
    detection_size: int = Field(ge=32)
    """Side in pixels at which the detector sees a picture."""


class TrainRLParams(Params):
    """Settings of stage 3."""

    seed: int = Field(ge=0)
    num_iterations: int = Field(ge=1)
    prompts_per_iteration: int = Field(ge=1)
    sampling: SdeParams
    update: UpdateParams
    rewards: RewardWeights
    faces: FaceParams

    @model_validator(mode="after")
    def _window_ends_before_the_last_step(self) -> "TrainRLParams":
        last = self.window(self.num_iterations - 1).stop
        if last >= self.sampling.num_steps:
            raise ValueError(
                f"the window would reach step {last} of {self.sampling.num_steps}, the last, which cannot be stochastic"
            )
        group_size, part = self.sampling.group_size, self.update.samples_per_update
        if group_size % part:
            raise ValueError(f"samples_per_update {part} does not divide group_size {group_size}")
        return self

    def window(self, iteration: int) -> range:
        """The stochastic steps of an iteration."""
        sampling = self.sampling
        start = window_start(
            iteration,
            num_steps=sampling.num_steps,
            window_size=sampling.window_size,
            move_every=sampling.move_every,
            stride=sampling.stride,
        )
        return range(start, start + sampling.window_size)
