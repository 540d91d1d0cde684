"""Stage 3: identity-preserving preference optimisation (paper, section 4.4): the MixGRPO window with a GSPO ratio.

Departures from the paper: advantages instead of raw rewards are added up by default (see
`mcpipe.objectives.advantage`); the clip range, the group size, eta and the shift, which it does not state, follow
MixGRPO; there is no moving average of the weights.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.encoders import decode_latents
from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.flux.sampler import encode_conditions
from mcpipe.flux.tokens import unpack
from mcpipe.objectives.advantage import combined_advantage
from mcpipe.objectives.flow import schedule
from mcpipe.objectives.gspo import clipped_objective, sequence_ratio
from mcpipe.progress import track
from mcpipe.records import JSON
from mcpipe.report import Report
from mcpipe.train.batches import generator_at, sample_index
from mcpipe.train.checkpoint import Checkpoint
from mcpipe.train.curves import Ends
from mcpipe.train.fit import Engine, Losses, OnStep, fit
from mcpipe.train.rewards import Judges, rewards
from mcpipe.train.rl_params import TrainRLParams
from mcpipe.train.rollout import Policy, Trajectory, rollout, window_logp


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

    def updates(self, iteration: int, prompts: Sequence[Prompt], conditions: Mapping[str, Conditions]) -> list[Update]:
        """The optimiser steps of one iteration, which draws with the network as the steps before left it."""
        size = self.params.prompts_per_iteration
        drawn = [
            self._group(prompt, conditions[prompt.key], iteration, iteration * size + place)
            for place, prompt in enumerate(prompts)
        ]
        groups = [group for group in drawn if group is not None]
        parts = self._policy(iteration).slices() if groups else []
        return [Update(groups, part, is_first=number == 0) for number, part in enumerate(parts)]

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


class Iterations:
    """All iterations as a course that can be taken up between two of them."""

    def __init__(self, learner: Learner, prompts: Sequence[Prompt]) -> None:
        self._learner, self._prompts = learner, prompts
        self._done = 0
        self._is_between = True

    def batches(self) -> Iterator[Update]:
        """The optimiser steps of the iterations that are left."""
        params, learner = self._learner.params, self._learner
        size = params.prompts_per_iteration
        order = [
            self._prompts[sample_index(len(self._prompts), params.seed, place)]
            for place in range(params.num_iterations * size)
        ]
        left = range(self._done, params.num_iterations)
        used = {prompt.key: prompt for prompt in order[left.start * size :]}
        conditions = {
            key: encode_conditions(learner.pipeline, [prompt.text], [prompt.faces]) for key, prompt in used.items()
        }
        for iteration in track(left, len(left), "iterations"):
            updates = learner.updates(iteration, order[iteration * size : (iteration + 1) * size], conditions)
            for number, update in enumerate(updates, 1):
                self._is_between = number == len(updates)
                self._done = iteration + self._is_between
                yield update

    def standing(self) -> dict[str, JSON] | None:
        """The iterations done and what was counted in them."""
        if not self._is_between:
            return None
        report = self._learner.report
        return {
            "iterations": self._done,
            "kept": list(report.kept),
            "rejections": [dict(rejection) for rejection in report.rejections],
            "forwards": dict(self._learner.forwards),
        }

    def resume(self, standing: Mapping[str, Any]) -> None:
        """Go on after the iterations of another run."""
        self._done = standing["iterations"]
        self._learner.forwards.update(standing["forwards"])
        self._learner.report.kept.extend(standing["kept"])
        self._learner.report.rejections.extend(standing["rejections"])


def train_rl(learner: Learner, prompts: Sequence[Prompt], on_step: OnStep, checkpoint: Checkpoint) -> dict[str, JSON]:
    """Train the network's adapter on what the judges prefer; returns facts about the training."""
    params = learner.params
    accelerator = Accelerator()
    parameters = [parameter for parameter in learner.network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=params.update.learning_rate, weight_decay=params.update.weight_decay)
    model, optimizer = accelerator.prepare(learner.network, optimizer)
    ends = Ends(on_step)
    engine = Engine(accelerator, model, optimizer, params.update.max_grad_norm)
    fit(engine, Iterations(learner, prompts), lambda update: learner.losses(model, update), ends, checkpoint)
    return {
        "trained_parameters": sum(parameter.numel() for parameter in parameters),
        "forwards": dict(sorted(learner.forwards.items())),
        "curves": {name: dict(values) for name, values in ends.means().items()},
    }
