"""Groups of pictures drawn from one prompt and one noise, stochastic within a window of steps (paper, Algorithm 1).

All samples of a group share their initial noise, so that they are one sample until the window's first draw: the steps
before it, and the network's answer at it, are computed once. Within the window the network runs on the same parts of
the group as in the update later on, because only then are both log-probabilities the same to the last bit; parts that
the first update learns from can keep their graph, which saves it the forward pass. After the window nothing is learned
from, and the whole group goes together: without a graph it needs no more memory than a part with one.
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
    """All randomness of one group: of each step of each sample its own draw, whatever runs together, and where."""

    seed: int
    position: int
    """Position of the prompt in the endless order of prompts."""

    def initial(self, shape: tuple[int, ...]) -> Float[Tensor, "1 tokens packed"]:
        """What every sample starts from."""
        return self._normal(shape, 0, 0)[None]

    def steps(self, index: int, group_size: int, shape: tuple[int, ...]) -> Float[Tensor, "group tokens packed"]:
        """What one step adds to each sample."""
        return torch.stack([self._normal(shape, sample + 1, index + 1) for sample in range(group_size)])

    def _normal(self, shape: tuple[int, ...], *place: int) -> Tensor:
        # Counted from 1, because numpy takes a seed that is too short for one that ends in zeros.
        state = np.random.SeedSequence((self.seed, self.position, *place)).generate_state(1, np.uint64)
        return torch.randn(shape, generator=torch.Generator().manual_seed(int(state[0] >> 1)))


@dataclass(frozen=True)
class Pass:
    """Samples at one step of the window that go through the network together."""

    place: int
    """Index of the step in the window."""
    samples: range

    @property
    def part(self) -> slice:
        """The samples as a part of their group."""
        return slice(self.samples.start, self.samples.stop)

    @property
    def num_states(self) -> int:
        """What the network sees of them: at the window's first step they are one."""
        return len(self.samples) if self.place else 1


@dataclass(frozen=True)
class Policy:
    """How trajectories are drawn."""

    sigmas: Float[Tensor, " levels"]
    window: range
    """Steps that are stochastic."""
    eta: float
    variant: sde.Variant
    group_size: int
    pass_size: int
    """Samples of a group that go through the network together within the window; divides the group size."""

    def step(self, index: int) -> sde.Step:
        """A step of the window."""
        return sde.step(self.sigmas, index, self.eta, self.variant)

    def passes(self, samples: range, place: int) -> list[Pass]:
        """The passes of the network that lead some samples over one step of the window."""
        size = self.pass_size if place else len(samples)
        return [Pass(place, samples[start : start + size]) for start in range(0, len(samples), size)]


@dataclass(frozen=True)
class Trajectory:
    """The stochastic steps of a group."""

    states: list[Float[Tensor, "samples tokens packed"]]
    """Before each step of the window and after its last; the first is one state for all."""
    mean: Float[Tensor, "1 tokens packed"]
    """Where the window's first step leads on average."""
    logp: Float[Tensor, "group steps"]
    """Log-probability of every step when it was drawn."""
    final: Float[Tensor, "group tokens packed"]
    """Latents of the pictures."""
    graphs: list[tuple[Pass, Float[Tensor, " samples"]]] = field(default_factory=list)
    """Log-probabilities of the kept samples with their graph."""


@torch.no_grad()
def rollout(
    network: ReferenceFlux,
    conditions: Conditions,
    policy: Policy,
    noise: Noise,
    forwards: Counter[str],
    kept: range = range(0),
) -> Trajectory:
    """Draw a group; ``forwards`` counts the states that went through the network, ``kept`` samples keep their graph."""
    num_steps, shape, device = len(policy.sigmas) - 1, network.state_shape, conditions.text.device
    start = noise.initial(shape).to(device)
    states = [integrate(network, start, policy.sigmas, range(policy.window.start), conditions)]
    forwards["rollout"] += policy.window.start
    first, logps, graphs = start, [], []
    for place, index in enumerate(policy.window):
        z = noise.steps(index, policy.group_size, shape).to(device)
        after, logp = [], []
        for one in policy.passes(range(policy.group_size), place):
            live = range(one.samples.start, min(one.samples.stop, kept.stop))
            with torch.set_grad_enabled(len(live) > 0):
                mean = pass_mean(network, states[-1], conditions, policy, one)
                after.append(mean.detach() + policy.step(index).std * z[one.part])
                logp.append(sde.log_prob(after[-1], mean.expand_as(after[-1]), policy.step(index).std))
                if live:
                    graphs.append((Pass(place, live), logp[-1][: len(live)]))
            first = first if place else mean.detach()
            forwards["rollout"] += one.num_states
        states.append(torch.cat(after))
        logps.append(torch.cat(logp).detach())
    left, everyone = range(policy.window.stop, num_steps), conditions.repeated(policy.group_size)
    final = integrate(network, states[-1], policy.sigmas, left, everyone)
    forwards["rollout"] += policy.group_size * len(left)
    return Trajectory(states, first, torch.stack(logps, 1), final, graphs)


def pass_logp(
    network: nn.Module, conditions: Conditions, policy: Policy, trajectory: Trajectory, one: Pass
) -> Float[Tensor, " samples"]:
    """Log-probability of the step that some samples took, under the network as it is now."""
    mean = pass_mean(network, trajectory.states[one.place], conditions, policy, one)
    after = trajectory.states[one.place + 1][one.part]
    return sde.log_prob(after, mean.expand_as(after), policy.step(policy.window[one.place]).std)


def pass_mean(
    network: nn.Module, states: Float[Tensor, "group tokens packed"], conditions: Conditions, policy: Policy, one: Pass
) -> Float[Tensor, "states tokens packed"]:
    """Where a step leads some of the states on average."""
    x = states[one.part] if one.place else states
    index = policy.window[one.place]
    t = torch.full((len(x),), float(policy.sigmas[index]), device=x.device)
    return policy.step(index).mean(x, network(x, t, conditions.repeated(len(x))))
