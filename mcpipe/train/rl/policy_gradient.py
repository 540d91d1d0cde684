"""Policy gradient of a group, added to ``.grad`` of the weights one pass of the network at a time.

    grad J = sum over samples and steps of  c_i^t grad logp_i^t,    c_i^t = dJ / dlogp_i^t

The coefficients c depend on the log-probabilities alone. ``joint`` keeps the graphs of all passes until the
coefficients are known; in the first update these are the rollout's own graphs, so that nothing runs again. ``two_pass``
first computes the log-probabilities without a graph (before the first update they are those of the rollout) and then
runs every pass again with its graph. In both, the backward pass of each graph is separate: autograd would otherwise
buffer a second gradient of all weights until the last graph has contributed.
"""

from collections import Counter
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcpipe.flux.network import Conditions
from mcpipe.objectives.grpo import clipped_steps, step_ratio
from mcpipe.objectives.gspo import clipped_objective, sequence_ratio
from mcpipe.train.rl.params import UpdateParams
from mcpipe.train.rl.rollout import Pass, Policy, Trajectory, pass_logp


@dataclass(frozen=True)
class Group:
    """A sampled and scored group."""

    conditions: Conditions
    policy: Policy
    trajectory: Trajectory
    advantages: Float[Tensor, " group"]


@dataclass(frozen=True)
class Surrogate:
    """The clipped objective as a function of log-probabilities."""

    value: Float[Tensor, ""]
    ratios: Float[Tensor, "..."]
    """Importance ratios, per sample or per step of a sample."""
    coefficients: Float[Tensor, "samples steps"]
    """Derivatives of the value by the log-probabilities."""


@dataclass
class PolicyGradient:
    """Sums over groups whose gradient has been added to ``.grad``."""

    objective: Tensor
    """Sum of the groups' objectives, which are to be maximised."""
    ratios: list[float] = field(default_factory=list)
    """Importance ratios of all samples, or of their steps."""
    clipped: list[float] = field(default_factory=list)
    """1 for a step of a sample whose gradient is 0 because of clipping, else 0."""

    def add(self, other: "PolicyGradient") -> None:
        """Add the sums of other groups."""
        self.objective = self.objective + other.objective
        self.ratios += other.ratios
        self.clipped += other.clipped


def surrogate(
    logp: Float[Tensor, "samples steps"],
    old: Float[Tensor, "samples steps"],
    advantages: Float[Tensor, " samples"],
    update: UpdateParams,
    dimensions: int,
) -> Surrogate:
    """The mean objective over samples (eq. 8, or GRPO's) and its derivatives at ``logp``.

    ``dimensions`` are those of a latent, over which log-probabilities are means.

    Raises:
        ValueError: the clip range fits no latent that small.
    """
    clips = update.clips(dimensions)
    with torch.enable_grad():
        leaf = logp.detach().requires_grad_()
        if update.ratio == "sequence":
            ratios = sequence_ratio(leaf, old)
            value = clipped_objective(ratios, advantages, *clips).mean()
        else:
            ratios = step_ratio(leaf, old)
            value = clipped_steps(ratios, advantages, *clips).mean()
        (coefficients,) = torch.autograd.grad(value, leaf)
    return Surrogate(value.detach(), ratios.detach(), coefficients)


def accumulate_gradient(
    network: nn.Module, group: Group, samples: range, update: UpdateParams, forwards: Counter[str], *, is_first: bool
) -> PolicyGradient:
    """Add the gradient of the objective of some samples of a group to ``.grad`` of the network's weights.

    ``is_first`` says that the network has not changed since the rollout, whose graphs are then used up. ``forwards``
    counts the states that pass through the network.

    Raises:
        ValueError: a ratio differs from 1 although the network has not changed.
    """
    old = group.trajectory.logp[samples.start : samples.stop]
    advantages = group.advantages[samples.start : samples.stop]
    dimensions = group.trajectory.mean[0].numel()
    passes = [each for place in range(len(group.policy.window)) for each in group.policy.passes(samples, place)]

    def run(forward: Pass) -> Tensor:
        forwards["update"] += forward.num_states
        return pass_logp(network, group.conditions, group.policy, group.trajectory, forward)

    if update.gradient == "joint":
        graphs = group.trajectory.graphs if is_first else []
        graphs = graphs or [(forward, run(forward)) for forward in passes]
        objective = surrogate(_table(graphs, old), old, advantages, update, dimensions)
        while graphs:  # a graph is freed as soon as it is used
            forward, logp = graphs.pop(0)
            (logp * _of(objective.coefficients, forward, samples)).sum().backward()
    else:
        with torch.no_grad():
            logps = old if is_first else _table([(forward, run(forward)) for forward in passes], old)
        objective = surrogate(logps, old, advantages, update, dimensions)
        for forward in passes:
            logp = run(forward)
            if is_first:
                _check(step_ratio(logp[:, None], _of(old, forward, samples)[:, None]))
            (logp * _of(objective.coefficients, forward, samples)).sum().backward()
    if is_first:
        _check(objective.ratios)
    forwards["gradient"] += sum(forward.num_states for forward in passes)
    clipped = (objective.coefficients == 0) & (advantages != 0)[:, None]
    return PolicyGradient(objective.value, objective.ratios.flatten().tolist(), clipped.float().flatten().tolist())


def _table(logps: list[tuple[Pass, Tensor]], old: Float[Tensor, "samples steps"]) -> Float[Tensor, "samples steps"]:
    """Log-probabilities of passes as a table; passes are ordered by step, then by sample."""
    return torch.cat([logp.detach() for _, logp in logps]).reshape(old.shape[1], old.shape[0]).T


def _of(values: Float[Tensor, "samples steps"], forward: Pass, samples: range) -> Float[Tensor, " part"]:
    """The values that belong to a pass over some of ``samples``."""
    return values[forward.samples.start - samples.start : forward.samples.stop - samples.start, forward.place]


def _check(ratios: Tensor) -> None:
    if not bool((ratios == 1).all()):
        raise ValueError(
            f"before the first update every ratio is 1, found {ratios.flatten().tolist()}; rollout and update ran with "
            "different shapes, types or kernels, so that clipping would act on rounding noise"
        )
