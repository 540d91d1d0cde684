"""Flow matching between images and noise (rectified flow).

    z_t = (1 - t) z_0 + t e,    v* = e - z_0,    t = 1 is pure noise

The paper's eq. 1 prints v = z_0 - e, which contradicts its own interpolation; FLUX predicts e - z_0, and so do we.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def noised(
    clean: Float[Tensor, "batch tokens width"], noise: Float[Tensor, "batch tokens width"], t: Float[Tensor, " batch"]
) -> Float[Tensor, "batch tokens width"]:
    """The point z_t on the straight line from the image (t = 0) to its noise (t = 1)."""
    t = t.reshape(-1, *[1] * (clean.ndim - 1))
    return (1 - t) * clean + t * noise


def flow_loss(
    velocity: Float[Tensor, "batch tokens width"],
    clean: Float[Tensor, "batch tokens width"],
    noise: Float[Tensor, "batch tokens width"],
) -> Float[Tensor, ""]:
    """Mean squared error of a predicted velocity against v* = e - z_0, unweighted, in float32."""
    return (velocity.float() - (noise - clean).float()).square().mean()


def shifted(t: Float[Tensor, " num"], shift: float) -> Float[Tensor, " num"]:
    """Times moved towards noise: s t / (1 + (s - 1) t); s = 1 leaves them alone, 0 and 1 are fixed."""
    return shift * t / (1 + (shift - 1) * t)


def schedule(num_steps: int, shift: float) -> Float[Tensor, " {num_steps}+1"]:
    """Noise levels sigma_0 = 1 > ... > sigma_T = 0 of a sampler with ``num_steps`` steps, in float64."""
    sigmas = shifted(torch.arange(num_steps, -1, -1, dtype=torch.float64) / num_steps, shift)
    sigmas[0] = 1.0  # which a shift below 0.5 may miss by rounding
    return sigmas


def resolution_shift(num_tokens: int) -> float:
    """FLUX's shift exp(mu) by an image's number of tokens: mu rises linearly from 0.5 at 256 to 1.15 at 4096."""
    return math.exp(0.5 + (num_tokens - 256) * (1.15 - 0.5) / (4096 - 256))
