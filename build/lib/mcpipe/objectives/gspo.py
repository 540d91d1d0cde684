"""Group sequence policy optimisation (arXiv:2507.18071) over denoising steps (paper, eqs. 7 and 8).

A "sequence" is one sampling trajectory; its "tokens" are the stochastic steps of the window S:

    s_i = exp( 1/|S| sum_t log ratio_i^t ),    J = 1/G sum_i min(s_i A_i, clip(s_i, 1 - low, 1 + high) A_i)
"""

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
