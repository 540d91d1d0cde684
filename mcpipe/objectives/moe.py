"""Which experts a token goes to, with which weights, and how evenly tokens spread (paper, section 4.3).

The paper's p = Softmax(TopK(W_g h, k)) is constant 1 at its own k = 1, so the task loss never trains the router.
Modes:

    paper   softmax over the kept logits; the literal formula
    renorm  softmax over all logits, divided by the kept sum (MixLoRA); equal to ``paper`` in value and gradient
    switch  softmax over all logits, kept as it is (Switch Transformer): trains the router but scales the experts down
    st      the value of ``paper`` with the gradient of log p over all logits (straight-through; our default)
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

Router = Literal["st", "switch", "paper", "renorm"]
BalanceOver = Literal["batch", "sample"]
"""Tokens over which experts should be used evenly: all that take a step together, or those of every sample alone."""


class Choice(NamedTuple):
    """The experts of every token, best first; all others have no part in it."""

    experts: Int[Tensor, "tokens kept"]
    weights: Float[Tensor, "tokens kept"]
    """p_i of each of them."""


def choose(logits: Float[Tensor, "tokens experts"], top_k: int, router: Router) -> Choice:
    """The ``top_k`` experts of each token and their weights p_i."""
    kept_logits, kept = logits.topk(top_k, dim=-1)
    chances = logits.softmax(-1).gather(-1, kept)
    if router == "switch":
        weights = chances
    elif router == "renorm":
        weights = chances / chances.sum(-1, keepdim=True)
    elif router == "paper":
        weights = kept_logits.softmax(-1)
    else:
        weights = kept_logits.softmax(-1).detach() * (chances / chances.detach())
    return Choice(kept, weights)


def expert_shares(logits: Float[Tensor, "*samples tokens experts"]) -> Float[Tensor, "*samples experts"]:
    """f_i: the share of tokens whose first choice is each expert; sums to 1."""
    experts = torch.arange(logits.shape[-1], device=logits.device)
    return (logits.argmax(-1, keepdim=True) == experts).to(logits.dtype).mean(-2)


def expert_chances(logits: Float[Tensor, "*samples tokens experts"]) -> Float[Tensor, "*samples experts"]:
    """P_i: the mean over tokens of the full softmax; sums to 1."""
    return logits.softmax(-1).mean(-2)


def balance_loss(
    shares: Float[Tensor, "*batch experts"], chances: Float[Tensor, "*batch experts"]
) -> Float[Tensor, "*batch"]:
    """num_experts x sum_i f_i P_i (Switch Transformer, eq. 4): 1 when tokens spread evenly, num_experts at worst.

    It is linear in P, and f has no gradient: with f of a whole batch, the mean of the losses of its parts, and of their
    gradients, is that of the batch.
    """
    return shares.shape[-1] * (shares * chances).sum(-1)
