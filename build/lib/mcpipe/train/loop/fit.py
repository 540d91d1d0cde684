"""The only training loop; it does not know what a loss means."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from mcpipe.flux.network import ReferenceFlux
from mcpipe.train.loop.checkpoint import Checkpoint, Course, Curves
from mcpipe.train.loop.runtime import Machine, accelerator, lay_out

Batch = TypeVar("Batch")

OnStep = Callable[[int, dict[str, float]], None]
"""Receives the step, counted from 0, and every number worth watching."""


@dataclass(frozen=True)
class Losses:
    """What one batch costs."""

    terms: dict[str, Tensor]
    """Named scalars, already weighted; their sum is minimised. All batches of a step have the same names."""
    watched: dict[str, float] = field(default_factory=dict)
    """Other numbers for the curves: means over samples."""
    counts: dict[str, int] = field(default_factory=dict)
    """Number of samples behind a value, where it varies from batch to batch; a value over no samples is left out."""


@dataclass(frozen=True)
class Engine:
    """What steps are taken with."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: torch.optim.Optimizer
    max_grad_norm: float
    accumulation_steps: int = 1
    """Batches that make a step, on each process; what is minimised is the mean over all of them."""

    def waiting(self) -> AbstractContextManager:
        """A context for batches after which more of the same step follow: processes do not yet exchange gradients."""
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) else nullcontext()

    def add(self, total: Tensor) -> None:
        """Add a batch's gradient to that of the step."""
        self.accelerator.backward(total / self.accumulation_steps)

    def clip(self) -> float:
        """Limit the norm of the step's gradient; returns the norm that it had."""
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        assert norm is not None, "no engine we use leaves the gradients unclipped"
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def step(self) -> None:
        """Take one step down the gradient."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def means(self, parts: Sequence[dict[str, float]]) -> dict[str, float]:
        """Numbers of a step: means over its batches, on all processes."""
        means = {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}
        if self.accelerator.num_processes == 1:
            return means
        here = torch.tensor(list(means.values()), dtype=torch.float64, device=self.accelerator.device)
        everywhere = self.accelerator.reduce(here, "mean")
        assert isinstance(everywhere, Tensor), "a tensor comes back as one"
        return dict(zip(means, everywhere.tolist(), strict=True))

    def weighted_means(self, parts: Sequence[dict[str, float]], counts: Sequence[dict[str, int]]) -> dict[str, float]:
        """The same where batches count as much as ``counts`` says, or 1; without numbers that no batch knows."""
        weights = [
            {name: float(count.get(name, 1)) for name in part} for part, count in zip(parts, counts, strict=True)
        ]
        sums = [
            {name: value * weight[name] if weight[name] else 0.0 for name, value in part.items()}
            for part, weight in zip(parts, weights, strict=True)
        ]
        num = self.means(weights)
        return {name: value / num[name] for name, value in self.means(sums).items() if num[name]}


def engine_for(
    network: ReferenceFlux,
    machine: Machine,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    max_grad_norm: float,
) -> Engine:
    """An engine for a network with an adapter, laid out on a machine; ``optimizer`` gets the adapter's weights."""
    here = accelerator()
    lay_out(network, machine, here.device, half=here.mixed_precision == "bf16")
    made = optimizer([parameter for parameter in network.parameters() if parameter.requires_grad])
    if machine.sharding == "none":
        model, prepared = here.prepare(network, made)
    else:  # spread already: Accelerate is only to see to precision
        model, prepared = here.prepare_model(network, evaluation_mode=True), here.prepare_optimizer(made)
    return Engine(here, model, prepared, max_grad_norm, machine.accumulation_steps)


def fit(
    engine: Engine,
    course: Course[Batch],
    losses: Callable[[Batch], Losses],
    on_step: OnStep,
    checkpoint: Checkpoint,
) -> None:
    """Take one optimiser step per ``engine.accumulation_steps`` batches until the course ends.

    It goes on from where ``checkpoint`` stands. ``on_step`` is told every step, also those that an earlier run took.

    Raises:
        FloatingPointError: a loss or the gradient is not finite; the message names every term.
        ValueError: the checkpoint is damaged.
    """
    network = engine.accelerator.unwrap_model(engine.model)
    curves: Curves = checkpoint.read(network, engine.optimizer, course)
    for step, values in enumerate(curves):
        on_step(step, values)
    batches = course.batches()
    for step, first in enumerate(batches, start=len(curves)):
        terms, watched, counts = _gradient(
            engine, chain([first], islice(batches, engine.accumulation_steps - 1)), losses
        )
        values = engine.means([{name: float(term) for name, term in part.items()} for part in terms])
        if not all(map(math.isfinite, values.values())):
            raise FloatingPointError(f"the loss is not finite at step {step}: {values}")
        grad_norm = engine.clip()
        if not math.isfinite(grad_norm):
            raise FloatingPointError(f"the gradient is not finite at step {step}; the loss is: {values}")
        engine.step()
        curves.append(values | engine.weighted_means(watched, counts) | {"grad_norm": grad_norm})
        on_step(step, curves[-1])
        checkpoint.after(network, engine.optimizer, course, curves)


def _gradient(
    engine: Engine, batches: Iterator[Batch], losses: Callable[[Batch], Losses]
) -> tuple[list[dict[str, Tensor]], list[dict[str, float]], list[dict[str, int]]]:
    """Let a step's batches leave their gradient in the network; the terms, watched numbers and counts of each."""
    terms, watched, counts = [], [], []
    for number, batch in enumerate(batches, 1):
        with engine.waiting() if number < engine.accumulation_steps else nullcontext():
            found = losses(batch)
            engine.add(torch.stack(list(found.terms.values())).sum())
        terms.append({name: term.detach() for name, term in found.terms.items()})
        watched.append(found.watched)
        counts.append(found.counts)
    return terms, watched, counts
