"""Stage 3: identity-preserving preference optimisation (paper, section 4.4): the MixGRPO window with a GSPO ratio.

Departures from the paper: advantages instead of raw rewards are added up by default (see
`mcpipe.objectives.advantage`); the clip range, the group size, eta and the shift, which it does not state, follow
MixGRPO; there is no moving average of the weights.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn

from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.encoders import decode_latents
from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.flux.sampler import encode_conditions
from mcpipe.flux.tokens import unpack
from mcpipe.objectives.advantage import Aggregate, combined_advantage
from mcpipe.objectives.flow import schedule
from mcpipe.objectives.gspo import clipped_objective, sequence_ratio
from mcpipe.objectives.sde import window_start
from mcpipe.params import Params
from mcpipe.progress import track
from mcpipe.records import JSON
from mcpipe.report import Report
from mcpipe.train.batches import generator_at, sample_index
from mcpipe.train.curves import Ends
from mcpipe.train.fit import Losses, OnStep, fit
from mcpipe.train.rewards import Judges, rewards
from mcpipe.train.rollout import Policy, Trajectory, rollout, window_logp


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


@dataclass(frozen=True)
class Prompt:
    """A text and the people it is about."""

    key: str
    text: str
    faces: UInt8[np.ndarray, "N R R 3"]
    embeddings: Float[np.ndarray, "N D"]
    """Of the faces, by the recogniser that also judges."""


@dataclass(frozen=True)
class Group:
    """A drawn and judged group."""

    conditions: Conditions
    policy: Policy
    trajectory: Trajectory
    advantages: Float[Tensor, " group"]
    rewards: dict[str, float]
    """Means over the group."""


@dataclass(frozen=True)
class Update:
    """One optimiser step: a slice of every group of an iteration."""

    groups: list[Group]
    part: slice
    is_first: bool
    """The network has not changed since the groups were drawn."""


class Learner:
    """Draws groups, has them judged, and says what they teach."""

    def __init__(
        self, pipeline: FluxPipeline, network: ReferenceFlux, judges: Judges, params: TrainRLParams, report: Report
    ) -> None:
        self.pipeline = pipeline
        self.network = network
        self.judges = judges
        self.params = params
        self.report = report
        self.forwards: Counter[str] = Counter()
        """Pictures sent through the network, in rollouts and in updates."""

    def updates(self, prompts: Sequence[Prompt]) -> Iterator[Update]:
        """The optimiser steps of all iterations; each iteration draws with the network as the steps before left it."""
        used = self._used(len(prompts))
        conditions = self._encoded([prompts[i] for i in sorted(set(used))])
        for iteration in track(range(self.params.num_iterations), self.params.num_iterations, "iterations"):
            size = self.params.prompts_per_iteration
            places = range(iteration * size, (iteration + 1) * size)
            drawn = [self._group(prompts[used[p]], conditions[prompts[used[p]].key], iteration, p) for p in places]
            groups = [group for group in drawn if group is not None]
            for number, part in enumerate(self._policy(iteration).slices()):
                if groups:
                    yield Update(groups, part, is_first=number == 0)

    def losses(self, model: nn.Module, update: Update) -> Losses:
        """The negative objective of eq. 8, averaged over samples and groups.

        Raises:
            ValueError: a ratio differs from 1 although the network has not changed.
        """
        objectives, ratios = [], []
        for group in update.groups:
            logp = window_logp(model, group.conditions, group.policy, group.trajectory, update.part, self.forwards)
            ratio = sequence_ratio(logp, group.trajectory.logp[update.part])
            if update.is_first and not bool((ratio == 1).all()):
                raise ValueError(
                    f"before the first update every ratio is 1, found {ratio.tolist()}; rollout and update ran with "
                    "different shapes, types or kernels, so that clipping would act on rounding noise"
                )
            limits = self.params.update
            advantages = group.advantages[update.part]
            objectives.append(clipped_objective(ratio, advantages, limits.clip_low, limits.clip_high))
            ratios.append(ratio.detach())
        deviation = float((torch.cat(ratios) - 1).abs().max())
        means = {
            f"reward_{name}": float(np.mean([group.rewards[name] for group in update.groups]))
            for name in update.groups[0].rewards
        }
        return Losses({"gspo": -torch.stack(objectives).mean()}, means | {"ratio_deviation": deviation})

    def _used(self, num_prompts: int) -> list[int]:
        total = self.params.num_iterations * self.params.prompts_per_iteration
        return [sample_index(num_prompts, self.params.seed, position) for position in range(total)]

    def _encoded(self, prompts: Sequence[Prompt]) -> dict[str, Conditions]:
        return {prompt.key: encode_conditions(self.pipeline, [prompt.text], [prompt.faces]) for prompt in prompts}

    def _policy(self, iteration: int) -> Policy:
        sampling = self.params.sampling
        return Policy(
            schedule(sampling.num_steps, sampling.shift),
            self.params.window(iteration),
            sampling.eta,
            sampling.group_size,
            self.params.update.samples_per_update,
        )

    def _group(self, prompt: Prompt, conditions: Conditions, iteration: int, position: int) -> Group | None:
        """A judged group; ``None`` if a judge gave no finite score, which the report counts."""
        policy = self._policy(iteration)
        generator = generator_at(self.params.seed, position)
        trajectory = rollout(self.network, conditions, policy, generator, self.forwards)
        pictures = decode_latents(self.pipeline, unpack(trajectory.final, self.network.layout.image))
        scores = rewards(self.judges, list(pictures), prompt.text, prompt.embeddings)
        key = f"{iteration:05d}-{prompt.key}"
        if not all(bool(torch.isfinite(values).all()) for values in scores.values()):
            self.report.drop(key, "reward_not_finite")
            return None
        self.report.keep(key)
        update = self.params.update
        weights = self.params.rewards.model_dump()
        advantages = combined_advantage(scores, weights, update.aggregate, update.max_advantage)
        means = {name: float(values.mean()) for name, values in scores.items()}
        return Group(conditions, policy, trajectory, advantages.float().to(conditions.text.device), means)


def train_rl(learner: Learner, prompts: Sequence[Prompt], on_step: OnStep) -> dict[str, JSON]:
    """Train the network's adapter on what the judges prefer; returns facts about the training."""
    params = learner.params
    accelerator = Accelerator()
    parameters = [parameter for parameter in learner.network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=params.update.learning_rate, weight_decay=params.update.weight_decay)
    model, optimizer = accelerator.prepare(learner.network, optimizer)
    ends = Ends(on_step)
    fit(
        accelerator, model, learner.updates(prompts), lambda update: learner.losses(model, update),
        optimizer, params.update.max_grad_norm, ends,
    )  # fmt: skip
    return {
        "trained_parameters": sum(parameter.numel() for parameter in parameters),
        "forwards": dict(sorted(learner.forwards.items())),
        "curves": {name: dict(values) for name, values in ends.means().items()},
    }
