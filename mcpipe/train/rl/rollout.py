"""Rollouts: groups of images sampled from one prompt and one noise, stochastic within a window (paper, Algorithm 1).

All samples of a group share their initial noise, so that they are identical until the window's first draw: the steps
before it, and the network's output at it, are computed once. Within the window the network runs on the same parts of
the group as in later updates, because only then are both log-probabilities equal to the last bit. Samples of the first
update can keep their graph, which saves its forward pass. The steps after the window have no gradient and run on the
whole group, which without a graph needs no more memory than a part with one.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.flux.sampler import integrate
from mcpipe.objectives import sde


@dataclass(frozen=True)
class Noise:
    """Random draws of one group: one per step and sample, independent of batching and device."""

    seed: int
    position: int
    """Position of the prompt in the endless order of prompts."""

    def initial(self, shape: tuple[int, ...]) -> Float[Tensor, "1 tokens packed"]:
        """Initial noise of all samples."""
        return self._normal(shape, 0, 0)[None]

    def steps(self, index: int, group_size: int, shape: tuple[int, ...]) -> Float[Tensor, "group tokens packed"]:
        """Noise that one step adds to each sample."""
        return torch.stack([self._normal(shape, sample + 1, index + 1) for sample in range(group_size)])

    def _normal(self, shape: tuple[int, ...], *place: int) -> Tensor:
        # Counted from 1, because numpy takes a seed that is too short for one that ends in zeros.
        state = np.random.SeedSequence((self.seed, self.position, *place)).generate_state(1, np.uint64)
        return torch.randn(shape, generator=torch.Generator().manual_seed(int(state[0] >> 1)))


@dataclass(frozen=True)
class Pass:
    """Samples that pass through the network together at one step of the window."""

    place: int
    """Index of the step in the window."""
    samples: range

    @property
    def part(self) -> slice:
        """The samples as a slice of their group."""
        return slice(self.samples.start, self.samples.stop)

    @property
    def num_states(self) -> int:
        """Number of distinct states: at the window's first step all samples share one."""
        return len(self.samples) if self.place else 1


@dataclass(frozen=True)
class Policy:
    """Sampling of trajectories."""

    sigmas: Float[Tensor, " levels"]
    window: range
    """Steps that are stochastic."""
    eta: float
    variant: sde.Variant
    group_size: int
    pass_size: int
    """Samples that pass through the network together within the window; divides the group size."""

    def step(self, index: int) -> sde.Step:
        """The step from one level of the window to the next."""
        return sde.step(self.sigmas, index, self.eta, self.variant)

    def passes(self, samples: range, place: int) -> list[Pass]:
        """Passes of the network that take some samples over one step of the window."""
        size = self.pass_size if place else len(samples)
        return [Pass(place, samples[start : start + size]) for start in range(0, len(samples), size)]


@dataclass(frozen=True)
class Trajectory:
    """Stochastic steps of a group, and its end."""

    states: list[Float[Tensor, "samples tokens packed"]]
    """States before each step of the window and after its last; the first is a single shared state."""
    mean: Float[Tensor, "1 tokens packed"]
    """Mean of the window's first step."""
    logp: Float[Tensor, "group steps"]
    """Log-probability of every step under the network of the rollout."""
    final: Float[Tensor, "group tokens packed"]
    """Latents of the images."""
    graphs: list[tuple[Pass, Float[Tensor, " samples"]]] = field(default_factory=list)
    """Log-probabilities of the kept samples with their graphs; the first update uses them up."""


@torch.no_grad()
def rollout(
    network: ReferenceFlux,
    conditions: Conditions,
    policy: Policy,
    noise: Noise,
    forwards: Counter[str],
    kept: range = range(0),
) -> Trajectory:
    """Sample a group; ``forwards`` counts states that pass through the network, ``kept`` samples keep their graph."""
    num_steps, shape, device = len(policy.sigmas) - 1, network.shape_of(conditions), conditions.text.device
    start = noise.initial(shape).to(device)
    states = [integrate(network, start, policy.sigmas, range(policy.window.start), conditions)]
    forwards["rollout"] += policy.window.start
    first, logps, graphs = start, [], []
    for place, index in enumerate(policy.window):
        z = noise.steps(index, policy.group_size, shape).to(device)
        after, logp = [], []
        for forward in policy.passes(range(policy.group_size), place):
            live = range(forward.samples.start, min(forward.samples.stop, kept.stop))
            with torch.set_grad_enabled(len(live) > 0):
                mean = pass_mean(network, states[-1], conditions, policy, forward)
                after.append(mean.detach() + policy.step(index).std * z[forward.part])
                logp.append(sde.log_prob(after[-1], mean.expand_as(after[-1]), policy.step(index).std))
                if live:
                    graphs.append((Pass(place, live), logp[-1][: len(live)]))
            first = first if place else mean.detach()
            forwards["rollout"] += forward.num_states
        states.append(torch.cat(after))
        logps.append(torch.cat(logp).detach())
    left, everyone = range(policy.window.stop, num_steps), conditions.repeated(policy.group_size)
    final = integrate(network, states[-1], policy.sigmas, left, everyone)
    forwards["rollout"] += policy.group_size * len(left)
    return Trajectory(states, first, torch.stack(logps, 1), final, graphs)


def pass_logp(
    network: nn.Module, conditions: Conditions, policy: Policy, trajectory: Trajectory, forward: Pass
) -> Float[Tensor, " samples"]:
    """Log-probability of a step of some samples under the network as it is now."""
    mean = pass_mean(network, trajectory.states[forward.place], conditions, policy, forward)
    after = trajectory.states[forward.place + 1][forward.part]
    return sde.log_prob(after, mean.expand_as(after), policy.step(policy.window[forward.place]).std)


def pass_mean(
    network: nn.Module,
    states: Float[Tensor, "group tokens packed"],
    conditions: Conditions,
    policy: Policy,
    forward: Pass,
) -> Float[Tensor, "states tokens packed"]:
    """Mean of a step of the window, from some of the group's states."""
    x = states[forward.part] if forward.place else states
    index = policy.window[forward.place]
    t = torch.full((len(x),), float(policy.sigmas[index]), device=x.device)
    return policy.step(index).mean(x, network(x, t, conditions.repeated(len(x))))
