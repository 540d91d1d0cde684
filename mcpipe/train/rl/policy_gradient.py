"""What a group teaches: the objective's value and its gradient, taken pass by pass where memory is short.

    grad J = sum over samples and steps of  c_i^t grad logp_i^t,    c_i^t = dJ / dlogp_i^t

The coefficients c follow from the log-probabilities alone. ``joint`` needs the graph of all passes at once; for the
first update it is the rollout's own, so that nothing runs again. ``two_pass`` first finds the coefficients without a
graph (before the first update all ratios are 1, and even that is spared), then takes the gradient pass by pass.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcpipe.flux.network import Conditions
from mcpipe.objectives.grpo import clipped_steps, step_ratio
from mcpipe.objectives.gspo import clipped_objective, sequence_ratio
from mcpipe.train.rl.params import UpdateParams
from mcpipe.train.rl.rollout import Pass, Policy, Trajectory, pass_logp

Gradient = list[Tensor]
"""One tensor per trained weight."""


@dataclass(frozen=True)
class Group:
    """A drawn and judged group."""

    conditions: Conditions
    policy: Policy
    trajectory: Trajectory
    advantages: Float[Tensor, " group"]


@dataclass(frozen=True)
class Slopes:
    """The objective as a function of log-probabilities."""

    value: Float[Tensor, ""]
    ratios: Float[Tensor, "..."]
    """Ratios of samples or of their steps."""
    coefficients: Float[Tensor, "samples steps"]
    """Derivatives by the log-probabilities."""


@dataclass
class Lesson:
    """What groups teach, added up over them."""

    objective: Tensor
    gradient: Gradient
    ratios: list[float]
    clipped: list[float]
    """1 for a step of a sample that clipping keeps from being learned, else 0."""

    def add(self, other: "Lesson") -> None:
        """Add another group's."""
        self.objective = self.objective + other.objective
        for mine, its in zip(self.gradient, other.gradient, strict=True):
            mine += its
        self.ratios += other.ratios
        self.clipped += other.clipped


def empty_lesson(weights: Sequence[nn.Parameter]) -> Lesson:
    """The gradient of no group: zeros."""
    return Lesson(torch.zeros((), device=weights[0].device), [torch.zeros_like(w) for w in weights], [], [])


def slopes(
    logp: Float[Tensor, "samples steps"],
    old: Float[Tensor, "samples steps"],
    advantages: Float[Tensor, " samples"],
    update: UpdateParams,
) -> Slopes:
    """The mean objective over samples (eq. 8, or GRPO's) where the log-probabilities are ``logp``."""
    with torch.enable_grad():
        leaf = logp.detach().requires_grad_()
        if update.ratio == "sequence":
            ratios = sequence_ratio(leaf, old)
            value = clipped_objective(ratios, advantages, update.clip_low, update.clip_high).mean()
        else:
            ratios = step_ratio(leaf, old)
            value = clipped_steps(ratios, advantages, update.clip_low, update.clip_high).mean()
        (coefficients,) = torch.autograd.grad(value, leaf)
    return Slopes(value.detach(), ratios.detach(), coefficients)


def learned(
    network: nn.Module, group: Group, samples: range, update: UpdateParams, forwards: Counter[str], *, is_first: bool
) -> Lesson:
    """What some samples of a group teach; ``is_first``: the network has not changed since they were drawn.

    Raises:
        ValueError: a ratio differs from 1 although the network has not changed.
    """
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    old = group.trajectory.logp[samples.start : samples.stop]
    advantages = group.advantages[samples.start : samples.stop]
    passes = [one for place in range(len(group.policy.window)) for one in group.policy.passes(samples, place)]

    def ran(one: Pass) -> Tensor:
        forwards["update"] += one.num_states
        return pass_logp(network, group.conditions, group.policy, group.trajectory, one)

    if update.gradient == "joint":
        graphs = group.trajectory.graphs if is_first else []
        graphs = graphs or [(one, ran(one)) for one in passes]
        found = slopes(_table(graphs, old), old, advantages, update)
        parts = [(logp * _of(found.coefficients, one, samples)).sum() for one, logp in graphs]
        gradient = _gradient(torch.stack(parts).sum(), weights)
    else:
        with torch.no_grad():
            logp = old if is_first else _table([(one, ran(one)) for one in passes], old)
        found = slopes(logp, old, advantages, update)
        gradient = [torch.zeros_like(weight) for weight in weights]
        for one in passes:
            logp = ran(one)
            if is_first:
                _check(step_ratio(logp[:, None], _of(old, one, samples)[:, None]))
            for whole, part in zip(
                gradient, _gradient((logp * _of(found.coefficients, one, samples)).sum(), weights), strict=True
            ):
                whole += part
    if is_first:
        _check(found.ratios)
    forwards["gradient"] += sum(one.num_states for one in passes)
    clipped = (found.coefficients == 0) & (advantages != 0)[:, None]
    return Lesson(found.value, gradient, found.ratios.flatten().tolist(), clipped.float().flatten().tolist())


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value: Tensor, gradient: Gradient, *_weights: Tensor) -> Tensor:  # noqa: ANN001  torch's own
        ctx.gradient = gradient
        return value.clone()

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN001  torch's own
        return (None, None, *(slope * part for part in ctx.gradient))


def known(value: Float[Tensor, ""], gradient: Gradient, weights: Sequence[nn.Parameter]) -> Float[Tensor, ""]:
    """A loss whose gradient has been found already."""
    return _Known.apply(value, gradient, *weights)


def _table(logps: Sequence[tuple[Pass, Tensor]], old: Float[Tensor, "samples steps"]) -> Float[Tensor, "samples steps"]:
    """Log-probabilities of passes, side by side; passes are ordered by step, then by sample."""
    return torch.cat([logp.detach() for _, logp in logps]).reshape(old.shape[1], old.shape[0]).T


def _of(values: Float[Tensor, "samples steps"], one: Pass, samples: range) -> Float[Tensor, " part"]:
    """The values that belong to a pass over some of ``samples``."""
    return values[one.samples.start - samples.start : one.samples.stop - samples.start, one.place]


def _gradient(value: Tensor, weights: Sequence[nn.Parameter]) -> Gradient:
    return list(torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True))


def _check(ratios: Tensor) -> None:
    if not bool((ratios == 1).all()):
        raise ValueError(
            f"before the first update every ratio is 1, found {ratios.flatten().tolist()}; rollout and update ran with "
            "different shapes, types or kernels, so that clipping would act on rounding noise"
        )
