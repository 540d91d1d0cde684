"""Advantages: the rewards of a group relative to their mean (paper, Algorithm 1 and eq. 9).

    advantage mode   A = sum_k w_k / (sum w) (R_k - mean R_k) / std R_k    (DanceGRPO, MixGRPO; our default)
    reward mode      A = (R - mean R) / std R  with  R = sum_k w_k R_k     (the paper's text)

In reward mode the identity term, whose values spread ten times wider than the others', decides nearly alone.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Aggregate = Literal["advantage", "reward"]

EPSILON = 1e-8
"""Added to the standard deviation (MixGRPO)."""


ROUNDING = 1e-6
"""Minimum informative range of rewards: a scorer's values vary by 1e-8 with an image's place in the batch."""


def group_advantage(rewards: Float[Tensor, " group"]) -> Float[Tensor, " group"]:
    """Rewards in units of their sample standard deviation (ddof 1) from their mean; zeros where all are equal.

    Rewards are cosines or the like; closer together than rounding moves them, they count as equal.
    """
    spread = rewards - rewards.mean()
    if float(rewards.max() - rewards.min()) <= ROUNDING:
        return torch.zeros_like(rewards)
    return spread / (rewards.std(correction=1) + EPSILON)


def combined_advantage(
    rewards: Mapping[str, Float[Tensor, " group"]], weights: Mapping[str, float], aggregate: Aggregate, limit: float
) -> Float[Tensor, " group"]:
    """One advantage per sample from several rewards, cut to [-limit, limit].

    Raises:
        ValueError: rewards and weights have different names, or the weights do not add up to a positive number.
    """
    total = sum(weights.values())
    if set(rewards) != set(weights) or total <= 0:
        raise ValueError(
            f"rewards {sorted(rewards)} need weights with these names and a positive sum, not {dict(weights)}"
        )
    if aggregate == "reward":
        combined = group_advantage(torch.stack([weights[name] * rewards[name] for name in sorted(rewards)]).sum(0))
    else:
        parts = [weights[name] / total * group_advantage(rewards[name]) for name in sorted(rewards)]
        combined = torch.stack(parts).sum(0)
    return combined.clamp(-limit, limit)
