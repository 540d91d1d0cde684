"""AdamW as the runtime says: of torch, or of bitsandbytes with moments in 8 bits (Dettmers, arXiv 2110.02861)."""

from collections.abc import Iterable

import torch
from torch import nn

from mcpipe.train.loop.runtime import TrainingRuntime


def adamw(
    runtime: TrainingRuntime, weights: Iterable[nn.Parameter], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW for trained weights; bitsandbytes keeps moments of fewer than 4,096 weights in float32."""
    weights = list(weights)
    if runtime.optimizer == "adamw":
        return torch.optim.AdamW(weights, lr=learning_rate, weight_decay=weight_decay)
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit  # pyright: ignore[reportMissingImports]

    kind = PagedAdamW8bit if runtime.optimizer == "paged_adamw8bit" else AdamW8bit
    return kind(weights, lr=learning_rate, weight_decay=weight_decay)
