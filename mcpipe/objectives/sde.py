"""Steps of a sampler from noise to image: deterministic (ODE) or stochastic (SDE) with the same marginals.

    dt = sigma' - sigma < 0
    flow_grpo, dance_grpo   mean = x + [v + g^2 / (2 sigma) (x + (1 - sigma) v)] dt,    x' = mean + g sqrt(-dt) z
        flow_grpo           g = eta sqrt(sigma / (1 - sigma)); at sigma = 1 the next level stands in the denominator
        dance_grpo          g = eta
    cps                     mean = (1 - sigma') (x - sigma v) + sigma' cos(eta pi/2) (x + (1 - sigma) v)
                            x' = mean + sigma' sin(eta pi/2) z

eta = 0 is the ODE in every variant. CPS (coefficients-preserving sampling) swaps part of the old noise for new, so that
image and noise keep the weights that the schedule gives them. Everything is kept in float32; log-probabilities are
averaged, not summed, over the latent's dimensions, as in Flow-GRPO, DanceGRPO and MixGRPO: ratios stay near 1, and how
near depends on the latent's size (see `mcpipe.objectives.gspo.clip_range`).
"""

import math
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Variant = Literal["flow_grpo", "dance_grpo", "cps"]


@dataclass(frozen=True)
class Step:
    """A transition x -> N(x x_weight + v v_weight, std^2); std 0 is an ODE step."""

    x_weight: float
    v_weight: float
    std: float

    def mean(self, x: Float[Tensor, "batch ..."], v: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Where the step leads on average."""
        return self.x_weight * x.float() + self.v_weight * v.float()


def step(sigmas: Float[Tensor, " levels"], index: int, eta: float, variant: Variant = "flow_grpo") -> Step:
    """The step from level ``index`` of a schedule to the next; ``eta`` 0 makes it deterministic.

    Raises:
        ValueError: a stochastic step would end at noise level 0, where its noise would remain in the image.
    """
    sigma, next_sigma = float(sigmas[index]), float(sigmas[index + 1])
    dt = next_sigma - sigma
    if eta > 0 and next_sigma == 0:
        raise ValueError("the last step of a schedule cannot be stochastic; its noise would stay in the picture")
    if eta > 0 and variant == "cps":
        kept = next_sigma * math.cos(eta * math.pi / 2)
        velocity = kept * (1 - sigma) - sigma * (1 - next_sigma)
        return Step(1 - next_sigma + kept, velocity, next_sigma * math.sin(eta * math.pi / 2))
    g_squared = eta**2
    if variant == "flow_grpo":
        g_squared *= sigma / (1 - (next_sigma if sigma == 1 else sigma))
    drift = g_squared / (2 * sigma) * dt
    return Step(1 + drift, dt + drift * (1 - sigma), math.sqrt(g_squared * -dt))


def log_prob(
    x_next: Float[Tensor, "batch ..."], mean: Float[Tensor, "batch ..."], std: float
) -> Float[Tensor, " batch"]:
    """Mean log-density per latent dimension of having stepped to ``x_next``; ``std`` is positive."""
    deviation = (x_next.detach() - mean) / std
    return (-deviation.square() / 2 - math.log(std) - math.log(2 * math.pi) / 2).flatten(1).mean(1)


def window_start(iteration: int, *, num_steps: int, window_size: int, move_every: int, stride: int) -> int:
    """First stochastic step l of an iteration counted from 0 (paper, Algorithm 1).

    The window moves by ``stride`` after every ``move_every`` iterations and never passes ``num_steps - window_size``.
    There it holds the last step, which cannot be stochastic: the trainer stops one before (`TrainRLParams.window`).
    """
    return min(iteration // move_every * stride, num_steps - window_size)
