"""Group relative policy optimisation step by step (MixGRPO, arXiv:2507.21802), to compare the sequence's ratio with.

    r_i^t = exp(log ratio_i^t),    J = 1/G sum_i 1/|S| sum_t min(r_i^t A_i, clip(r_i^t, 1 - low, 1 + high) A_i)

Over a window of one step it is GSPO (see `mcpipe.objectives.gspo`).
"""

from jaxtyping import Float
from torch import Tensor

from mcpipe.objectives.gspo import clipped_objective


def step_ratio(
    logp_new: Float[Tensor, "samples steps"], logp_old: Float[Tensor, "samples steps"]
) -> Float[Tensor, "samples steps"]:
    """How much likelier every single step has become."""
    return (logp_new - logp_old.detach()).exp()


def clipped_steps(
    ratio: Float[Tensor, "samples steps"], advantage: Float[Tensor, " samples"], clip_low: float, clip_high: float
) -> Float[Tensor, " samples"]:
    """Mean over a sample's steps of min(r A, clip(r) A), every step clipped on its own. To be maximised."""
    steps = ratio.shape[1]
    each = clipped_objective(ratio.flatten(), advantage.repeat_interleave(steps), clip_low, clip_high)
    return each.unflatten(0, ratio.shape).mean(1)
