"""Which experts a token goes to, with which weights, and how evenly tokens spread (paper, section 4.3).

The paper's p = Softmax(TopK(W_g h, k)) is constant 1 at its own k = 1, so the task loss never trains the router.
Modes:

    paper   softmax over the kept logits; the literal formula
    renorm  softmax over all logits, divided by the kept sum (MixLoRA); equal to ``paper`` in value and gradient
    switch  softmax over all logits, kept as it is (Switch Transformer): trains the router but scales the experts down
    st      the value of ``paper`` with the gradient of log p over all logits (straight-through; our default)
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Router = Literal["st", "switch", "paper", "renorm"]


def expert_weights(
    logits: Float[Tensor, "tokens experts"], top_k: int, router: Router
) -> Float[Tensor, "tokens experts"]:
    """Weights p_i of the ``top_k`` experts of each token; 0 for the others."""
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
    return torch.zeros_like(logits).scatter(-1, kept, weights)


def expert_shares(logits: Float[Tensor, "tokens experts"]) -> Float[Tensor, " experts"]:
    """f_i: the share of tokens whose first choice is each expert; sums to 1."""
    return torch.bincount(logits.argmax(-1), minlength=logits.shape[-1]).to(logits.dtype) / len(logits)


def balance_loss(logits: Float[Tensor, "tokens experts"]) -> Float[Tensor, ""]:
    """num_experts x sum_i f_i P_i with mean chances P_i (Switch Transformer, eq. 4): 1 when tokens spread evenly."""
    return logits.shape[-1] * (expert_shares(logits) * logits.softmax(-1).mean(0)).sum()
