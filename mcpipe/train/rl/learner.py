"""One process's part in reinforcement learning: rollouts, scores and policy gradients (paper, section 4.4)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, prod

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mcpipe.core.order import reference_order
from mcpipe.core.report import Report
from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.encoders import decode_latents
from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.flux.sampler import encode_conditions, integrate
from mcpipe.flux.tokens import Grid, layout, unpack
from mcpipe.objectives.advantage import combined_advantage
from mcpipe.objectives.flow import schedule
from mcpipe.train.loop.fit import Losses
from mcpipe.train.rl.distributed import gather, num_processes, sum_counts, sum_in_place
from mcpipe.train.rl.monitor import Summary, router_usage
from mcpipe.train.rl.params import TrainRLParams
from mcpipe.train.rl.policy_gradient import Group, PolicyGradient, accumulate_gradient
from mcpipe.train.rl.reference import ReferencePolicy
from mcpipe.train.rl.rewards import Prompt, ScorerError, Scorers, heldout_identity, rewards
from mcpipe.train.rl.rollout import Noise, Policy, rollout
from mcpipe.train.rl.rollout_log import ImageScores


@dataclass(frozen=True)
class GroupResult:
    """Scores of a group, or the reason why it was dropped."""

    key: str
    scores: list[ImageScores]
    """Scores of the group's images; empty for a dropped group."""
    summary: Summary
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Update:
    """One optimiser step on an equal part of every group of an iteration."""

    groups: list[Group]
    """Groups of this process."""
    dropped: list[Group]
    """Groups without scores that run along, if the weights are sharded: all processes gather them together."""
    num_groups: int
    """Number of groups on all processes."""
    samples: range
    policy_gradient: PolicyGradient | None
    """Sums over this process's groups if their gradient is already in ``.grad``: in the first update, with graphs of
    the rollouts."""
    is_first: bool
    """Whether the network has not changed since the rollouts."""
    summary: Summary
    """Metrics of the iteration; updates add the deviation of their ratios."""


@dataclass(frozen=True)
class Iteration:
    """Rollouts of an iteration and the updates on them."""

    updates: list[Update]
    scores: list[ImageScores]
    summary: Summary


class Learner:
    """Samples groups, scores them and accumulates their policy gradient in ``.grad`` of the network's weights."""

    def __init__(
        self, pipeline: FluxPipeline, network: ReferenceFlux, scorers: Scorers, params: TrainRLParams, report: Report
    ) -> None:
        """Keep the start of the training as the reference policy.

        Raises:
            ValueError: the clip range does not fit latents of this size.
        """
        self.pipeline = pipeline
        self.network = network
        self.scorers = scorers
        self.params = params
        self.report = report
        self.num_unjudged = 0
        """Images of which the judge gave no valid score."""
        self.forwards: Counter[str] = Counter()
        """States that passed through the network: in rollouts, in updates, with a gradient, and for monitoring."""
        self.keep_reference()
        params.update.clips(prod(network.state_shape))  # refuses a range that fits no latent of this size

    @property
    def weights(self) -> list[nn.Parameter]:
        """The trained weights."""
        return [weight for weight in self.network.parameters() if weight.requires_grad]

    @property
    def is_sharded(self) -> bool:
        """Whether weights are spread over processes, so that all have to run the network together."""
        return any(isinstance(weight, DTensor) for weight in self.weights)

    def keep_reference(self) -> None:
        """Make the network as it is now the reference policy."""
        self.reference = ReferencePolicy(self.network)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.weights[0].device

    def iteration(
        self, number: int, prompts: Sequence[Prompt], conditions: Mapping[str, Conditions], places: range
    ) -> Iteration:
        """Sample and score the groups of an iteration with the network as it is; this process takes some ``places``.

        With ``update.gradient`` ``joint``, the gradient of the first update is in ``.grad`` afterwards.
        """
        self.network.zero_grad(set_to_none=True)
        groups, dropped, results, counts = [], [], [], Counter()
        joint = PolicyGradient(torch.zeros((), device=self.device)) if self.params.update.gradient == "joint" else None
        for place in places:
            inputs = conditions[prompts[place].key].to(self.device)
            group, result = self._group(prompts[place], inputs, number, place, counts)
            results.append(result)
            if not result.scores and not self.is_sharded:
                continue
            (groups if result.scores else dropped).append(group)
            if joint is not None:
                sums = self._accumulate(group, self._parts[0], counts, is_first=True)
                joint.add(sums if result.scores else PolicyGradient(torch.zeros_like(joint.objective)))
        self.forwards.update(sum_counts(counts))
        kept = self._reported(gather(results))
        scores = [score for result in kept for score in result.scores]
        self.num_unjudged += sum(score.semantic is not None and isnan(score.semantic) for score in scores)
        summary = _summary(scores, [result.summary for result in kept])
        updates = [
            Update(groups, dropped, len(kept), part, None if index else joint, index == 0, summary)
            for index, part in enumerate(self._parts if kept else [])
        ]
        return Iteration(updates, scores, summary)

    def accumulate(self, update: Update) -> Losses:
        """Leave the gradient of the negative objective of eq. 8 in ``.grad``: a mean over samples and groups.

        It is summed and divided in place, because at full size every copy of a gradient takes gigabytes.

        Raises:
            ValueError: a ratio differs from 1 although the network has not changed.
        """
        local, counts = update.policy_gradient, Counter()
        if local is None:
            local = PolicyGradient(torch.zeros((), device=self.device))
            for group in update.groups:
                local.add(self._accumulate(group, update.samples, counts, is_first=update.is_first))
            for group in update.dropped:
                self._accumulate(group, update.samples, counts, is_first=update.is_first)
        self.forwards.update(sum_counts(counts))
        for weight in self.weights:  # without an own group, or an own token for an expert
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        loss, grads = local.objective.clone(), [weight.grad for weight in self.weights if weight.grad is not None]
        sum_in_place([loss] if self.is_sharded else [loss, *grads])
        loss.div_(-update.num_groups)
        num_summed = num_processes() if self.is_sharded else 1  # sharded gradients are means over processes already
        for grad in grads:
            grad.div_(-update.num_groups / num_summed)
        ratios, clipped = gather(local.ratios), gather(local.clipped)
        deviation = max(abs(ratio - 1) for ratio in ratios)
        update.summary["ratio_deviation"] = max(deviation, update.summary.get("ratio_deviation", 0.0))
        metrics = update.summary | {
            "ratio": float(np.mean(ratios)),
            "ratio_deviation": deviation,
            "clip_share": float(np.mean(clipped)),
        }
        name = "gspo" if self.params.update.ratio == "sequence" else "grpo"
        return Losses({name: loss}, metrics)

    @torch.no_grad()
    def previews(self, prompts: Sequence[Conditions]) -> list[UInt8[np.ndarray, "H W 3"]]:
        """One image per prompt by the ODE sampler, from the same noise at every call."""
        sampling = self.params.sampling
        sigmas, steps = schedule(sampling.num_steps, self.params.shift), range(sampling.num_steps)
        by_grid: dict[Grid, dict[int, Tensor]] = {}
        for position, conditions in enumerate(prompts):
            noise = Noise(self.params.seed, position).initial(self.network.shape_of(conditions)).to(self.device)
            tokens = integrate(self.network, noise, sigmas, steps, conditions.to(self.device))
            by_grid.setdefault(self.network.layout_of(conditions).image, {})[position] = tokens
        self.forwards["watch"] += len(prompts) * sampling.num_steps
        images: dict[int, np.ndarray] = {}
        for grid, alike in by_grid.items():
            drawn = decode_latents(self.pipeline, unpack(torch.cat([*alike.values()]), grid))
            images.update(zip(alike, drawn, strict=True))
        return [images[position] for position in range(len(prompts))]

    def conditions_of(self, prompt: Prompt) -> Conditions:
        """A prompt's text and references as the network reads them, and the grid of its images, in main memory.

        Raises:
            ValueError: the size of its images does not fit the generator.
        """
        encoded = encode_conditions(self.pipeline, [prompt.text], [np.stack(prompt.references)]).to("cpu")
        grid = layout(self.pipeline, prompt.size, prompt.references[0].shape[0]).image if prompt.size else None
        return replace(encoded, grid=grid)

    @property
    def _parts(self) -> list[range]:
        return self.params.parts()

    def _policy(self, iteration: int) -> Policy:
        sampling = self.params.sampling
        return Policy(
            self.params.levels(iteration),
            self.params.window(iteration),
            sampling.eta,
            sampling.variant,
            sampling.group_size,
            sampling.samples_per_pass,
        )

    def _accumulate(self, group: Group, samples: range, counts: Counter[str], *, is_first: bool) -> PolicyGradient:
        return accumulate_gradient(self.network, group, samples, self.params.update, counts, is_first=is_first)

    def _group(
        self, prompt: Prompt, conditions: Conditions, iteration: int, place: int, counts: Counter[str]
    ) -> tuple[Group, GroupResult]:
        """A group and its scores; without scores and with advantages of 0 if a scorer has no finite score.

        Raises:
            FloatingPointError: the network's latents are not finite.
        """
        key = f"{iteration:05d}-{place:05d}-{prompt.key}"  # an iteration may have a prompt twice
        position = iteration * self.params.prompts_per_iteration + place
        if self.params.shuffle_references:
            order = reference_order(conditions.present.shape[1], self.params.seed, position)
            conditions = conditions.reordered(torch.from_numpy(order).to(self.device))
        policy, update = self._policy(iteration), self.params.update
        kept = self._parts[0] if update.gradient == "joint" else range(0)
        trajectory = rollout(self.network, conditions, policy, Noise(self.params.seed, position), counts, kept)
        summary = router_usage(self.network)
        if not bool(trajectory.final.isfinite().all()):
            raise FloatingPointError(
                f"iteration {iteration}, prompt {prompt.key}: the network draws values that are not finite; are its "
                "weights? Start again from another adapter or with a smaller rl_update.learning_rate"
            )
        images = list(decode_latents(self.pipeline, unpack(trajectory.final, self.network.layout_of(conditions).image)))
        columns, fault = self._scored(images, prompt)
        advantages = columns.get("advantage", torch.zeros(len(images)))
        group = Group(conditions, policy, trajectory, advantages.float().to(conditions.text.device))
        if fault is None or self.is_sharded:
            counts["watch"] += 1
            summary["kl_to_start"] = self.reference.divergence(self.network, group)
        if fault is not None:
            return group, GroupResult(key, [], {}, fault.reason, fault.detail)
        rows = [{name: float(column[number]) for name, column in columns.items()} for number in range(len(images))]
        logged = [ImageScores(iteration, place, prompt.key, number, **row) for number, row in enumerate(rows)]
        return group, GroupResult(key, logged, summary)

    def _scored(
        self, images: Sequence[UInt8[np.ndarray, "H W 3"]], prompt: Prompt
    ) -> tuple[dict[str, Tensor], ScorerError | None]:
        """Scores and advantages of a group's images by name; none, but the error, if a scorer failed."""
        update, rewarded = self.params.update, self.params.rewards
        with self.scorers.awake():
            try:
                scores = rewards(self.scorers, images, prompt, rewarded.matching)
                heldout = heldout_identity(self.scorers, images, prompt)
            except ScorerError as error:
                return {}, error
        advantages = combined_advantage(scores, rewarded.weights, update.aggregate, update.max_advantage)
        return scores | {"heldout": heldout, "advantage": advantages}, None

    def _reported(self, results: Sequence[GroupResult]) -> list[GroupResult]:
        """Results of the groups that were kept; the report counts all groups."""
        for result in results:
            if result.scores:
                self.report.keep(result.key)
            else:
                self.report.drop(result.key, result.reason, result.detail)
        return [result for result in results if result.scores]


def _summary(scores: Sequence[ImageScores], groups: Sequence[Summary]) -> Summary:
    """Metrics of an iteration over all processes, from its images and its groups."""
    if not scores:
        return {}
    means = {f"reward_{name}": _column(scores, name).mean() for name in ("text", "aesthetic", "identity")}
    if judged := [score.semantic for score in scores if score.semantic is not None and not isnan(score.semantic)]:
        means["reward_semantic"] = np.mean(judged)
    means |= {name: np.mean([group[name] for group in groups]) for name in groups[0]}
    means |= {"heldout": _column(scores, "heldout").mean(), "advantage_spread": _column(scores, "advantage").std()}
    return {name: float(value) for name, value in means.items()}


def _column(scores: Sequence[ImageScores], name: str) -> np.ndarray:
    return np.array([getattr(score, name) for score in scores], np.float64)
