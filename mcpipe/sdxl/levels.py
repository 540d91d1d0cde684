"""Noise levels of a variance-preserving diffusion as those of a flow.

SDXL sees x = a z_0 + s e with a^2 + s^2 = 1. Divided by a + s this is a flow's state at the noise level t,

    z = x / (a + s) = (1 - t) z_0 + t e,    t = s / (a + s)

so that a prediction of the noise is one of the velocity, v_hat = (e_hat - z) / (1 - t), and

    |e - e_hat|^2 = (1 - t)^2 |v - v_hat|^2

holds as it does for FLUX (`mcpipe.objectives.dpo`): "noise" is SDXL's own form of DPO, "velocity" weighs it by
(1 - t)^-2.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


class NoiseLevels:
    """The steps of a scheduler as noise levels t."""

    def __init__(self, alphas_cumprod: Float[Tensor, " steps"]) -> None:
        signal = alphas_cumprod.double().cpu().sqrt()
        noise = (1 - alphas_cumprod.double().cpu()).sqrt()
        self._levels = (noise / (signal + noise)).numpy()
        assert (np.diff(self._levels) > 0).all(), "more noise at every step"

    def __len__(self) -> int:
        """Number of steps (SDXL: 1,000)."""
        return len(self._levels)

    def drawn(self, uniform: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Levels of steps that are uniform as in SDXL's training, from uniform numbers in [0, 1)."""
        steps = (uniform * len(self)).long().clamp(max=len(self) - 1)
        return torch.from_numpy(self._levels).to(uniform)[steps.cpu()].to(uniform)

    def steps(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Steps of levels, between two of the scheduler's where t is; t beyond its range counts as the nearest."""
        places = np.interp(t.double().cpu().numpy(), self._levels, np.arange(len(self)))
        return torch.from_numpy(places).to(t)


def as_diffusion(
    state: Float[Tensor, "batch channels h w"], t: Float[Tensor, " batch"]
) -> Float[Tensor, "batch channels h w"]:
    """A flow's state as SDXL sees it: z (a + s), where a + s = ((1 - t)^2 + t^2)^(-1/2)."""
    return state * ((1 - t).square() + t.square()).rsqrt()[:, None, None, None]


def as_velocity(
    noise: Float[Tensor, "batch channels h w"],
    state: Float[Tensor, "batch channels h w"],
    t: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels h w"]:
    """The velocity e - z_0 that a predicted noise means at a flow's state."""
    return (noise - state) / (1 - t)[:, None, None, None]
