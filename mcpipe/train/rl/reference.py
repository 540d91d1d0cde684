"""The reference policy: the adapter as it was before reinforcement learning."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mcpipe.train.rl.policy_gradient import Group
from mcpipe.train.rl.rollout import Pass, pass_mean


class ReferencePolicy:
    """A copy in main memory of the trained weights at the start of the training.

    Of sharded weights it holds this process's shards; all processes call `divergence` together.
    """

    def __init__(self, network: nn.Module) -> None:
        self._trained = [weight for weight in network.parameters() if weight.requires_grad]
        self.weights = [_own(weight).to("cpu", copy=True) for weight in self._trained]

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
        for weight, stored in zip(self._trained, self.weights, strict=True):
            other, own = stored.clone(), _own(weight)
            stored.copy_(own)
            own.copy_(other)


def _own(weight: nn.Parameter) -> Tensor:
    """The memory of a weight, or of its shard in this process."""
    return weight.data.to_local() if isinstance(weight.data, DTensor) else weight.data
