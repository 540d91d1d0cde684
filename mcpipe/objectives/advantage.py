"""Advantages: the rewards of a group relative to their mean (paper, Algorithm 1 and eq. 9).

    advantage mode   A = sum_k w_k / (sum w) (R_k - mean R_k) / std R_k    (DanceGRPO, MixGRPO; our default)
    reward mode      A = (R - mean R) / std R  with  R = sum_k w_k R_k     (the paper's text)

In reward mode the identity term, whose values spread ten times wider than the others', decides nearly alone.

A reward may be missing for a sample (NaN), such as a score that a judge did not give. It then takes no side: mean and
standard deviation are those of the samples that have it, it adds 0 to the advantage of the sample that lacks it (in
reward mode the sample gets the mean of the others, or 0 if nobody has it), and the other rewards count as ever.
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

    Rewards are cosines or the like; closer together than rounding moves them, they count as equal. A missing reward
    (NaN) has advantage 0 and enters neither mean nor standard deviation.
    """
    given = ~rewards.isnan()
    known, advantage = rewards[given], torch.zeros_like(rewards)
    if len(known) < 2 or float(known.max() - known.min()) <= ROUNDING:
        return advantage
    advantage[given] = (known - known.mean()) / (known.std(correction=1) + EPSILON)
    return advantage


def completed(rewards: Float[Tensor, " group"]) -> Float[Tensor, " group"]:
    """Rewards with the mean of the others in place of missing ones (NaN), 0 if all are missing."""
    return rewards.nan_to_num(nan=float(rewards.nanmean().nan_to_num(nan=0.0)))


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
        combined = group_advantage(
            torch.stack([weights[name] * completed(rewards[name]) for name in sorted(rewards)]).sum(0)
        )
    else:
        parts = [weights[name] / total * group_advantage(rewards[name]) for name in sorted(rewards)]
        combined = torch.stack(parts).sum(0)
    return combined.clamp(-limit, limit)
