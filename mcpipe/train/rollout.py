"""Groups of pictures drawn from one prompt and one noise, stochastic within a window of steps (paper, Algorithm 1).

All samples of a group share their initial noise, so that they are one sample until the window's first draw: the steps
before it, and the network's answer at it, are computed once. Within the window the network runs on the same slices of
the group as in the update later on, because only then are both log-probabilities the same to the last bit.
"""

from collections import Counter
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.flux.sampler import integrate
from mcpipe.objectives import sde


@dataclass(frozen=True)
class Policy:
    """How trajectories are drawn."""

    sigmas: Float[Tensor, " levels"]
    window: range
    """Steps that are stochastic."""
    eta: float
    group_size: int
    slice_size: int
    """Samples of a group that run together; divides the group size."""

    def slices(self) -> list[slice]:
        """The parts of a group that run together."""
        return [slice(start, start + self.slice_size) for start in range(0, self.group_size, self.slice_size)]


@dataclass(frozen=True)
class Trajectory:
    """The stochastic steps of a group."""

    states: list[Float[Tensor, "samples tokens packed"]]
    """Before each step of the window and after its last; the first is one state for all."""
    logp: Float[Tensor, "group steps"]
    """Log-probability of every step when it was drawn."""
    final: Float[Tensor, "group tokens packed"]
    """Latents of the pictures."""


@torch.no_grad()
def rollout(
    network: ReferenceFlux, conditions: Conditions, policy: Policy, generator: torch.Generator, forwards: Counter[str]
) -> Trajectory:
    """Draw a group; ``forwards`` counts the pictures that went through the network."""
    num_steps = len(policy.sigmas) - 1
    shape = (1, *network.state_shape)
    device = conditions.text.device
    noise = torch.randn(shape, generator=generator).to(device)
    states = [integrate(network, noise, policy.sigmas, range(policy.window.start), conditions)]
    forwards["rollout"] += policy.window.start
    logps = []
    for index in policy.window:
        step = sde.step(policy.sigmas, index, policy.eta)
        mean = _group_mean(network, states[-1], index, conditions, policy, forwards)
        z = torch.randn((policy.group_size, *shape[1:]), generator=generator).to(device)
        states.append(mean + step.std * z)
        logps.append(sde.log_prob(states[-1], mean, step.std))
    everyone = conditions.repeated(policy.group_size)
    final = integrate(network, states[-1], policy.sigmas, range(policy.window.stop, num_steps), everyone)
    forwards["rollout"] += policy.group_size * (num_steps - policy.window.stop)
    return Trajectory(states, torch.stack(logps, 1), final)


def window_logp(
    network: torch.nn.Module,
    conditions: Conditions,
    policy: Policy,
    trajectory: Trajectory,
    part: slice,
    forwards: Counter[str],
) -> Float[Tensor, "samples steps"]:
    """Log-probability of the drawn steps of some samples under the network as it is now, with gradients."""
    logps = []
    for place, index in enumerate(policy.window):
        before, after = trajectory.states[place], trajectory.states[place + 1][part]
        before = before if len(before) == 1 else before[part]
        mean = _mean(network, before, index, conditions, policy)
        forwards["update"] += len(before)
        logps.append(sde.log_prob(after, mean.expand_as(after), sde.step(policy.sigmas, index, policy.eta).std))
    return torch.stack(logps, 1)


def _group_mean(
    network: ReferenceFlux, x: Tensor, index: int, conditions: Conditions, policy: Policy, forwards: Counter[str]
) -> Tensor:
    """Where one step leads every sample of the group on average."""
    forwards["rollout"] += len(x)
    if len(x) == 1:
        return _mean(network, x, index, conditions, policy).expand(policy.group_size, -1, -1)
    return torch.cat([_mean(network, x[part], index, conditions, policy) for part in policy.slices()])


def _mean(network: torch.nn.Module, x: Tensor, index: int, conditions: Conditions, policy: Policy) -> Tensor:
    t = torch.full((len(x),), float(policy.sigmas[index]), device=x.device)
    velocity = network(x, t, conditions.repeated(len(x)))
    return sde.step(policy.sigmas, index, policy.eta).mean(x, velocity)
