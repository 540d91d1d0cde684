"""One process' part in reinforcement: groups are drawn, judged, and turned into losses (paper, section 4.4)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from mcpipe.core.records import JSON
from mcpipe.core.report import Report
from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.encoders import decode_latents
from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.flux.sampler import integrate
from mcpipe.flux.tokens import unpack
from mcpipe.objectives.advantage import combined_advantage
from mcpipe.objectives.flow import schedule
from mcpipe.train.loop.fit import Losses
from mcpipe.train.rl import distributed as ranks
from mcpipe.train.rl.monitor import Start, Summary, router_usage
from mcpipe.train.rl.params import TrainRLParams
from mcpipe.train.rl.policy_gradient import Group, Lesson, empty_lesson, known, learned
from mcpipe.train.rl.rewards import JudgeError, Judges, Prompt, heldout_identity, rewards
from mcpipe.train.rl.rollout import Noise, Policy, rollout

Row = dict[str, JSON]
"""The scores of one picture."""


@dataclass(frozen=True)
class Outcome:
    """What became of a group."""

    key: str
    rows: list[Row]
    """None of a group that was dropped."""
    summary: Summary
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Update:
    """One optimiser step: a part of every group of an iteration."""

    groups: list[Group]
    """Those that this process drew."""
    num_groups: int
    """On all processes."""
    samples: range
    lesson: Lesson | None
    """What this process' groups teach, where it is known: before the first update, from the rollouts' own graphs."""
    is_first: bool
    """The network has not changed since the groups were drawn."""
    summary: Summary
    """Summary of the iteration; collects the ratios' distances from 1."""


@dataclass(frozen=True)
class Iteration:
    """Drawn groups and the steps to be taken on them."""

    updates: list[Update]
    rows: list[Row]
    summary: Summary


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
        """States sent through the network in rollouts, in updates and to watch, and states with a gradient."""
        self._start = Start(network)

    @property
    def weights(self) -> list[nn.Parameter]:
        """What is trained."""
        return [weight for weight in self.network.parameters() if weight.requires_grad]

    def iteration(
        self, number: int, prompts: Sequence[Prompt], conditions: Mapping[str, Conditions], places: range
    ) -> Iteration:
        """One iteration, drawn with the network as the steps before left it; this process takes some ``places``."""
        groups, outcomes, counts = [], [], Counter()
        lesson = empty_lesson(self.weights) if self.params.update.gradient == "joint" else None
        for place in places:
            own = conditions[prompts[place].key].to(self._start.device)
            group, outcome = self._group(prompts[place], own, number, place, counts)
            outcomes.append(outcome)
            if group is None:
                continue
            groups.append(group)
            if lesson is not None:
                lesson.add(learned(self.network, group, self._parts[0], self.params.update, counts, is_first=True))
                group.trajectory.graphs.clear()
        self.forwards.update(ranks.counted(counts))
        kept = self._reported(ranks.gathered(outcomes))
        rows = [row for outcome in kept for row in outcome.rows]
        summary = _summary(rows, [outcome.summary for outcome in kept])
        updates = [
            Update(groups, len(kept), part, None if place else lesson, place == 0, summary)
            for place, part in enumerate(self._parts if kept else [])
        ]
        return Iteration(updates, rows, summary)

    def losses(self, update: Update) -> Losses:
        """The negative objective of eq. 8, averaged over samples and groups.

        Raises:
            ValueError: a ratio differs from 1 although the network has not changed.
        """
        lesson, counts = update.lesson, Counter()
        if lesson is None:
            lesson = empty_lesson(self.weights)
            for group in update.groups:
                lesson.add(
                    learned(self.network, group, update.samples, self.params.update, counts, is_first=update.is_first)
                )
        self.forwards.update(ranks.counted(counts))
        # In place: at full size every copy of the gradient takes gigabytes.
        totals = ranks.summed([lesson.objective, *lesson.gradient])
        value, *gradient = [total.div_(-update.num_groups) for total in totals]
        ratios, clipped = ranks.gathered(lesson.ratios), ranks.gathered(lesson.clipped)
        deviation = max(abs(ratio - 1) for ratio in ratios)
        update.summary["ratio_deviation"] = max(deviation, update.summary.get("ratio_deviation", 0.0))
        watched = update.summary | {
            "ratio": float(np.mean(ratios)),
            "ratio_deviation": deviation,
            "clip_share": float(np.mean(clipped)),
        }
        name = "gspo" if self.params.update.ratio == "sequence" else "grpo"
        return Losses({name: known(value, gradient, self.weights)}, watched)

    @torch.no_grad()
    def pictures(self, prompts: Sequence[Conditions]) -> UInt8[np.ndarray, "prompts S S 3"]:
        """One picture per prompt along the ODE, always from the same noise."""
        sampling = self.params.sampling
        sigmas, steps = schedule(sampling.num_steps, sampling.shift), range(sampling.num_steps)
        tokens = []
        for position, conditions in enumerate(prompts):
            noise = Noise(self.params.seed, position).initial(self.network.state_shape).to(self._start.device)
            tokens.append(integrate(self.network, noise, sigmas, steps, conditions.to(self._start.device)))
        self.forwards["watch"] += len(prompts) * sampling.num_steps
        return decode_latents(self.pipeline, unpack(torch.cat(tokens), self.network.layout.image))

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

    def _group(
        self, prompt: Prompt, conditions: Conditions, iteration: int, place: int, counts: Counter[str]
    ) -> tuple[Group | None, Outcome]:
        """A judged group; ``None`` if a judge has no finite score.

        Raises:
            FloatingPointError: the network draws what is no picture.
        """
        key = f"{iteration:05d}-{place:05d}-{prompt.key}"  # an iteration may have a prompt twice
        position = iteration * self.params.prompts_per_iteration + place
        policy, update = self._policy(iteration), self.params.update
        kept = self._parts[0] if update.gradient == "joint" else range(0)
        trajectory = rollout(self.network, conditions, policy, Noise(self.params.seed, position), counts, kept)
        usage = router_usage(self.network)
        if not bool(trajectory.final.isfinite().all()):
            raise FloatingPointError(
                f"iteration {iteration}, prompt {prompt.key}: the network draws values that are not finite; are its "
                "weights? Start again from another adapter or with a smaller rl_update.learning_rate"
            )
        pictures = list(decode_latents(self.pipeline, unpack(trajectory.final, self.network.layout.image)))
        try:
            scores = rewards(self.judges, pictures, prompt, self.params.rewards.matching)
            heldout = heldout_identity(self.judges, pictures, prompt)
        except JudgeError as error:
            return None, Outcome(key, [], {}, error.reason, error.detail)
        weights = self.params.rewards.weights
        advantages = combined_advantage(scores, weights, update.aggregate, update.max_advantage)
        group = Group(conditions, policy, trajectory, advantages.float().to(conditions.text.device))
        counts["watch"] += 1
        usage["kl_to_start"] = self._start.divergence(self.network, group)
        columns = scores | {"heldout": heldout, "advantage": advantages}
        rows: list[Row] = [
            {"iteration": iteration, "place": place, "prompt": prompt.key, "picture": number}
            | {name: float(values[number]) for name, values in columns.items()}
            for number in range(policy.group_size)
        ]
        return group, Outcome(key, rows, usage)

    def _reported(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """The outcomes of groups that were kept; the report counts all."""
        for outcome in outcomes:
            if outcome.rows:
                self.report.keep(outcome.key)
            else:
                self.report.drop(outcome.key, outcome.reason, outcome.detail)
        return [outcome for outcome in outcomes if outcome.rows]


def _summary(rows: Sequence[Row], groups: Sequence[Summary]) -> Summary:
    """The numbers of an iteration, over all processes: of its pictures and of its groups."""
    if not rows:
        return {}
    names = ("text", "aesthetic", "identity", "heldout", "advantage")
    columns = {name: np.array([row[name] for row in rows], np.float64) for name in names}
    means = {f"reward_{name}": float(columns[name].mean()) for name in names[:3]}
    means |= {name: float(np.mean([group[name] for group in groups])) for name in groups[0]}
    return means | {"heldout": float(columns["heldout"].mean()), "advantage_spread": float(columns["advantage"].std())}
