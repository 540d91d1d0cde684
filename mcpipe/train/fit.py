"""The only training loop; it does not know what a loss means."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

Batch = TypeVar("Batch")

OnStep = Callable[[int, dict[str, float]], None]
"""Is told the step, counted from 0, and every number worth watching."""


@dataclass(frozen=True)
class Losses:
    """What one batch costs."""

    terms: dict[str, Tensor]
    """Named scalars, already weighted; their sum is minimised."""
    watched: dict[str, float] = field(default_factory=dict)
    """Other numbers for the curves."""


def fit(
    accelerator: Accelerator,
    model: nn.Module,
    batches: Iterable[Batch],
    losses: Callable[[Batch], Losses],
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float,
    on_step: OnStep,
) -> None:
    """Take one optimiser step per batch until ``batches`` ends.

    Raises:
        FloatingPointError: a loss is not finite; the message names every term.
    """
    for step, batch in enumerate(batches):
        found = losses(batch)
        values = {name: float(term.detach()) for name, term in found.terms.items()}
        total = torch.stack(list(found.terms.values())).sum()
        if not bool(torch.isfinite(total)):
            raise FloatingPointError(f"the loss is not finite at step {step}: {values}")
        accelerator.backward(total)
        grad_norm = accelerator.clip_grad_norm_(model.parameters(), max_grad_norm)
        assert grad_norm is not None, "no engine we use leaves the gradients unclipped"
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        on_step(step, values | found.watched | {"grad_norm": float(grad_norm)})
