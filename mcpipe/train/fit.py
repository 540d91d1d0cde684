"""The only training loop; it does not know what a loss means."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mcpipe.train.checkpoint import Checkpoint, Course, Curves

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


@dataclass(frozen=True)
class Engine:
    """What steps are taken with."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: torch.optim.Optimizer
    max_grad_norm: float

    def step(self, total: Tensor) -> float:
        """Take one step down the gradient of a loss; returns the gradient's norm before it was clipped."""
        self.accelerator.backward(total)
        grad_norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        assert grad_norm is not None, "no engine we use leaves the gradients unclipped"
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(grad_norm)


def fit(
    engine: Engine,
    course: Course[Batch],
    losses: Callable[[Batch], Losses],
    on_step: OnStep,
    checkpoint: Checkpoint,
) -> None:
    """Take one optimiser step per batch until the course ends, from where ``checkpoint`` stands on.

    ``on_step`` is told every step, also those that an earlier run took.

    Raises:
        FloatingPointError: a loss is not finite; the message names every term.
        ValueError: the checkpoint is damaged.
    """
    network = engine.accelerator.unwrap_model(engine.model)
    curves: Curves = checkpoint.read(network, engine.optimizer, course)
    for step, values in enumerate(curves):
        on_step(step, values)
    for step, batch in enumerate(course.batches(), start=len(curves)):
        found = losses(batch)
        values = {name: float(term.detach()) for name, term in found.terms.items()}
        total = torch.stack(list(found.terms.values())).sum()
        if not bool(torch.isfinite(total)):
            raise FloatingPointError(f"the loss is not finite at step {step}: {values}")
        grad_norm = engine.step(total)
        curves.append(values | found.watched | {"grad_norm": grad_norm})
        on_step(step, curves[-1])
        if engine.accelerator.is_main_process:
            checkpoint.after(network, engine.optimizer, course, curves)
