"""Watching a reinforcement: how far it has gone from its start, and whether it goes wrong."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from mcpipe.flux.moe_lora import busiest_share, expert_layers
from mcpipe.flux.network import ReferenceFlux
from mcpipe.train.rl.params import WatchParams
from mcpipe.train.rl.policy_gradient import Group
from mcpipe.train.rl.rollout import Pass, pass_mean

Summary = dict[str, float]
"""The numbers of one iteration."""


class Start:
    """The trained weights as they were when the training began, in main memory."""

    def __init__(self, network: nn.Module) -> None:
        self._weights = [weight for weight in network.parameters() if weight.requires_grad]
        self._values = [weight.detach().to("cpu", copy=True) for weight in self._weights]

    @property
    def device(self) -> torch.device:
        """Where the network is now."""
        return self._weights[0].device

    @torch.no_grad()
    def divergence(self, network: nn.Module, group: Group) -> float:
        """KL divergence of the window's first step from the start's, per latent dimension; one pass of one state."""
        policy, trajectory = group.policy, group.trajectory
        with self._back():
            everyone = Pass(0, range(policy.group_size))
            before = pass_mean(network, trajectory.states[0], group.conditions, policy, everyone)
        std = policy.step(policy.window.start).std
        return float(((trajectory.mean - before) / std).square().mean() / 2)

    @contextmanager
    def _back(self) -> Iterator[None]:
        """Within this context the network has the weights that it started with."""
        now = [weight.data for weight in self._weights]
        try:
            for weight, value in zip(self._weights, self._values, strict=True):
                weight.data = value.to(weight.device)
            yield
        finally:
            for weight, value in zip(self._weights, now, strict=True):
                weight.data = value


def router_usage(network: ReferenceFlux) -> Summary:
    """How many tokens the busiest expert got in the latest pass; nothing without experts."""
    if not any(True for _ in expert_layers(network.transformer)):
        return {}
    return {"router_busiest": busiest_share(network.transformer)}


def collapse(history: Sequence[Summary], params: WatchParams) -> str | None:
    """Why a training should not go on, or ``None`` if it should.

    The held-out recogniser scores the very pictures that are rewarded, so that prompts cannot explain a disagreement.
    """
    if not history:
        return None
    drift = history[-1].get("ratio_deviation", 0.0)
    if drift > params.max_ratio_drift:
        return f"ratio_drift: a ratio went {drift:.3g} away from 1, more than {params.max_ratio_drift:g}"
    num = params.num_compared
    if len(history) < 2 * num:
        return None
    risen = _mean(history[-num:], "reward_identity") - _mean(history[:num], "reward_identity")
    fallen = _mean(history[:num], "heldout") - _mean(history[-num:], "heldout")
    if min(risen, fallen) > params.max_disagreement:
        return (
            f"reward_hack: the identity reward rose by {risen:.3g} while the held-out recogniser's score fell by "
            f"{fallen:.3g}, both more than {params.max_disagreement:g}"
        )
    return None


def _mean(some: Sequence[Summary], name: str) -> float:
    return sum(summary[name] for summary in some) / len(some)
