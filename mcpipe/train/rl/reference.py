"""The reference policy: the adapter as it was before reinforcement learning."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mcpipe.train.rl.policy_gradient import Group
from mcpipe.train.rl.rollout import Pass, pass_mean


class ReferencePolicy:
    """A copy in main memory of the trained weights at the start of the training."""

    def __init__(self, network: nn.Module) -> None:
        self._weights = [weight for weight in network.parameters() if weight.requires_grad]
        self._stored = [weight.detach().to("cpu", copy=True) for weight in self._weights]

    @torch.no_grad()
    def divergence(self, network: nn.Module, group: Group) -> float:
        """KL divergence of the window's first step from the reference, per latent dimension; one pass of one state."""
        policy, trajectory = group.policy, group.trajectory
        with self._restored():
            everyone = Pass(0, range(policy.group_size))
            reference = pass_mean(network, trajectory.states[0], group.conditions, policy, everyone)
        std = policy.step(policy.window.start).std
        return float(((trajectory.mean - reference) / std).square().mean() / 2)

    @contextmanager
    def _restored(self) -> Iterator[None]:
        """Within this context the network has the reference weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange the network's and the stored weights one by one, in the memory that both have already.

        Graphs that a rollout keeps refer to the same memory, hence ``.data``: it holds their values again when they
        are used.
        """
        for index, weight in enumerate(self._weights):
            current = weight.detach().to("cpu", copy=True)
            weight.data.copy_(self._stored[index])
            self._stored[index] = current
