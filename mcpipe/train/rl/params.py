"""Settings of training stage 3."""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from mcpipe.core.params import Params, ShuffleReferences, TakenFrom
from mcpipe.objectives.advantage import Aggregate
from mcpipe.objectives.flow import schedule, shifted
from mcpipe.objectives.gspo import ClipRange, clip_range
from mcpipe.objectives.reward import Matching
from mcpipe.objectives.sde import Variant, window_start
from mcpipe.train.loop.launch import Processes


class SdeParams(Params):
    """Sampling of a group."""

    variant: Variant
    """Kind of the stochastic steps (see `mcpipe.objectives.sde`)."""
    num_steps: int = Field(ge=3)
    eta: float = Field(gt=0)
    """Strength of the noise in stochastic steps; at most 1 for ``cps``."""
    group_size: int = Field(ge=2)
    samples_per_pass: int = Field(ge=1)
    """Samples that pass through the network together in the window; divides the samples of an update."""
    window_size: int = Field(ge=1)
    """Number of stochastic steps of a trajectory."""
    move_every: int = Field(ge=1)
    """Iterations after which the window moves."""
    stride: int = Field(ge=0)
    """Steps by which it moves."""
    after_window: float = Field(gt=0, le=1)
    """Share of the steps after the window that are taken, rounded up; below 1 they are longer (as in MixGRPO-Flash)."""


class UpdateParams(Params):
    """Objective and optimiser."""

    updates_per_rollout: int = Field(ge=1)
    """Optimiser steps per iteration, each on an equal part of every group; divides the group size."""
    ratio: Literal["sequence", "step"]
    """One importance ratio per trajectory (GSPO, the paper's) or one per step (GRPO, to compare)."""
    gradient: Literal["joint", "two_pass"]
    """Memory of an update: graphs of the whole window, reused from the rollout, or of one pass of the network."""
    clip_low: float = Field(gt=0, lt=1)
    clip_high: float = Field(gt=0)
    clip_dimensions: int = Field(ge=1)
    """Latent dimensions that the clip ranges are stated for; at other sizes they are scaled (`clips`)."""
    aggregate: Aggregate
    max_advantage: float = Field(gt=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    ema_decay: float = Field(ge=0, lt=1)
    """Decay of the moving average of the weights that becomes the result; 0 for none."""

    def clips(self, dimensions: int) -> ClipRange:
        """The clip ranges for latents of some dimensions.

        Raises:
            ValueError: the lower one would clip nothing.
        """
        return clip_range(self.clip_low, self.clip_high, stated_for=self.clip_dimensions, dimensions=dimensions)


class RewardParams(Params):
    """Weights of the rewards."""

    text: float = Field(ge=0)
    aesthetic: float = Field(ge=0)
    identity: float = Field(ge=0)
    semantic: float = Field(ge=0)
    """Score of a multimodal model; 0 asks none."""
    matching: Matching
    """Assignment of detected subjects to references."""

    @model_validator(mode="after")
    def _something_counts(self) -> "RewardParams":
        if not sum(self.weights.values()):
            raise ValueError("text, aesthetic, identity and semantic are all 0, so that nothing is rewarded")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """Weights by reward; without the semantic one if it is not computed."""
        return self.model_dump(exclude={"matching"} if self.semantic else {"matching", "semantic"})


class PsrParams(Params):
    """Models and settings of the rewards of PSR (arXiv:2512.01236)."""

    grounder: str | None
    """Folder of a Grounding DINO model, which locates every subject by its phrase; null: faces are detected."""
    box_threshold: float = Field(ge=0, le=1)
    """Certainty above which a box counts."""
    encoder: str | None
    """Folder of a DINO or DINOv2 model, which compares located subjects."""
    phrase: str
    """Attribute of a face of the pool, a column of its table, that holds the phrase."""
    judge: str | None
    """Folder of a Qwen2.5-VL model, which gives the semantic score."""
    preference: str | None
    """Folder of an HPSv3 model, which gives the aesthetic score; null: models.reward_hps does."""
    temperature: float = Field(ge=0)
    """Temperature of the judge's answers; 0 decodes greedily."""
    max_tokens: int = Field(ge=1)
    """Longest answer of the judge."""
    attempts: int = Field(ge=1)
    """Maximum number of answers about one image until one has a valid score."""
    seed: int = Field(ge=0)
    """Seed of the first answer."""


class WatchParams(Params):
    """Monitoring of the training."""

    pictures_every: int = Field(ge=0)
    """Iterations between two previews of the same prompts from the same noise; 0 for none."""
    num_prompts: int = Field(ge=1)
    """Number of prompts in a preview."""
    max_ratio_drift: float = Field(gt=0)
    """Largest distance of a ratio from 1; beyond it the training has collapsed."""
    num_compared: int = Field(ge=1)
    """Number of iterations at the start and at the end whose scores are compared."""
    max_disagreement: float = Field(gt=0)
    """Rise of the identity reward and fall of the held-out score beyond which the reward is being hacked."""


class TrainRLParams(Params):
    """Settings of training stage 3."""

    seed: int = Field(ge=0)
    num_iterations: int = Field(ge=1)
    rank: int | None = Field(ge=1)
    """Rank of a fresh LoRA on top of the frozen adapter of stage 2; null goes on with the adapter itself."""
    prompts_per_iteration: int = Field(ge=1)
    shuffle_references: ShuffleReferences
    """Whether references change places from group to group."""
    shift: Annotated[float, Field(gt=0), TakenFrom("generate.sample.shift")]
    """Shift of the noise schedule; that of the benchmark, so that what is rewarded is what is drawn."""
    guidance: Annotated[float, Field(ge=0), TakenFrom("generate.sample.guidance")]
    """Guidance input of the transformer; that of the benchmark."""
    sampling: Annotated[SdeParams, TakenFrom("rl_sampling")]
    update: Annotated[UpdateParams, TakenFrom("rl_update")]
    rewards: RewardParams
    psr: Annotated[PsrParams, TakenFrom("rl_psr")]
    min_face_score: Annotated[float, Field(ge=0, le=1), TakenFrom("evaluate.min_face_score")]
    """Least confidence of a face detection; that of the evaluation, so that one image has one score."""
    detection_size: Annotated[int, Field(ge=32), TakenFrom("evaluate.detection_size")]
    """Side in pixels to which an image is resized for the detector; that of the evaluation."""
    watch: WatchParams
    processes: Processes

    @model_validator(mode="after")
    def _parts_fit(self) -> "TrainRLParams":
        sampling, updates = self.sampling, self.update.updates_per_rollout
        if sampling.window_size >= sampling.num_steps:
            raise ValueError(
                f"a window of {sampling.window_size} of {sampling.num_steps} steps holds the last, which cannot be "
                "stochastic"
            )
        if sampling.variant == "cps" and sampling.eta > 1:
            raise ValueError(f"eta is at most 1 for cps, where it is the share of new noise; found {sampling.eta}")
        if sampling.group_size % updates:
            raise ValueError(f"updates_per_rollout {updates} does not divide group_size {sampling.group_size}")
        if sampling.group_size // updates % sampling.samples_per_pass:
            raise ValueError(
                f"samples_per_pass {sampling.samples_per_pass} does not divide the {sampling.group_size // updates} "
                f"samples of an update"
            )
        return self

    @model_validator(mode="after")
    def _rewards_have_models(self) -> "TrainRLParams":
        by_name, psr = self.rewards.matching == "by_name", self.psr
        if by_name and None in (psr.grounder, psr.encoder):
            raise ValueError(
                "rewards.matching by_name locates subjects by phrases; set rl_psr.grounder and rl_psr.encoder"
            )
        if not by_name and psr.grounder is not None:
            raise ValueError(f"rewards.matching {self.rewards.matching} is for faces; with rl_psr.grounder set by_name")
        if self.rewards.semantic and psr.judge is None:
            raise ValueError("rewards.semantic is the score of a judge; set rl_psr.judge, or the weight to 0")
        if psr.preference is not None and self.update.aggregate == "reward":
            raise ValueError(
                "scores of HPSv3, rl_psr.preference, are several units and would outweigh every other reward; set "
                "rl_update.aggregate to advantage"
            )
        return self

    def window(self, iteration: int) -> range:
        """The stochastic steps of an iteration, counted from 0; never the last step."""
        sampling = self.sampling
        start = window_start(
            iteration,
            num_steps=sampling.num_steps,
            window_size=sampling.window_size,
            move_every=sampling.move_every,
            stride=sampling.stride,
        )
        start = min(start, sampling.num_steps - 1 - sampling.window_size)
        return range(start, start + sampling.window_size)

    def levels(self, iteration: int) -> Float[Tensor, " levels"]:
        """Noise levels of an iteration's trajectories; after the window there may be fewer than in the schedule."""
        sampling, stop = self.sampling, self.window(iteration).stop
        levels, left = schedule(sampling.num_steps, self.shift), sampling.num_steps - stop
        taken = max(math.ceil(round(sampling.after_window * left, 6)), 1)
        if taken == left:
            return levels
        times = torch.linspace(left / sampling.num_steps, 0, taken + 1, dtype=torch.float64)
        return torch.cat([levels[:stop], shifted(times, self.shift)])

    def parts(self) -> list[range]:
        """The samples of a group that each update of an iteration uses."""
        size = self.sampling.group_size // self.update.updates_per_rollout
        return [range(start, start + size) for start in range(0, self.sampling.group_size, size)]
