"""Group sequence policy optimisation (arXiv:2507.18071) over denoising steps (paper, eqs. 7 and 8).

A "sequence" is one sampling trajectory; its "tokens" are the stochastic steps of the window S:

    s_i = exp( 1/|S| sum_t log ratio_i^t ),    J = 1/G sum_i min(s_i A_i, clip(s_i, 1 - low, 1 + high) A_i)

Log-probabilities are means over the D dimensions of a latent (see `mcpipe.objectives.sde`). A step whose mean has moved
by q standard deviations per dimension, hence by K = D q^2 / 2 nats of KL divergence, has

    log ratio ~ N(-K / D, 2 K / D^2),    averaged over |S| steps  N(-K / D, 2 K / (|S| D^2))

so that both the shift and the noise of a ratio shrink as 1 / D at an equal change of the policy, and so must the range
in which it is not clipped (`clip_range`).
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


def sequence_ratio(
    logp_new: Float[Tensor, "samples steps"], logp_old: Float[Tensor, "samples steps"]
) -> Float[Tensor, " samples"]:
    """How much likelier a whole trajectory has become: the geometric mean of its step ratios."""
    return (logp_new - logp_old.detach()).mean(1).exp()


def clipped_objective(
    ratio: Float[Tensor, " samples"], advantage: Float[Tensor, " samples"], clip_low: float, clip_high: float
) -> Float[Tensor, " samples"]:
    """min(s A, clip(s) A): no gradient where A > 0 and s > 1 + high, or A < 0 and s < 1 - low. To be maximised."""
    return (ratio * advantage).minimum(ratio.clamp(1 - clip_low, 1 + clip_high) * advantage)


class ClipRange(NamedTuple):
    """Distances of a ratio below and above 1 beyond which it has no gradient."""

    low: float
    high: float


def clip_range(low: float, high: float, *, stated_for: int, dimensions: int) -> ClipRange:
    """Clip ranges stated for latents of ``stated_for`` dimensions, for latents of ``dimensions``.

    Their product with the number of dimensions is kept: at every size, the same share of samples is clipped when the
    policy has moved by the same KL divergence.

    Raises:
        ValueError: the lower range would reach a ratio of 0, so that it would clip nothing.
    """
    scale = stated_for / dimensions
    if low * scale >= 1:
        raise ValueError(
            f"a clip range of {low:g} at {stated_for:,} dimensions is {low * scale:.3g} at the {dimensions:,} of this "
            "generator's latents, so that no ratio is below it; set a smaller rl_update.clip_low or clip_dimensions"
        )
    return ClipRange(low * scale, high * scale)
