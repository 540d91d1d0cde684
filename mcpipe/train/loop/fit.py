"""The only training loop. The caller of `fit` computes losses and owns their backward pass."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from mcpipe.flux.network import ReferenceFlux
from mcpipe.train.loop.checkpoint import Batches, Checkpoint, Curves
from mcpipe.train.loop.runtime import TrainingRuntime, make_accelerator, prepare

Batch = TypeVar("Batch")

OnStep = Callable[[int, dict[str, float]], None]
"""Takes an optimiser step, counted from 0, and its metrics."""


@dataclass(frozen=True)
class Losses:
    """Losses and metrics of one batch."""

    terms: dict[str, Tensor]
    """Named scalars, already weighted; their sum is minimised. All batches of a step have the same names."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Other values for the curves: means over samples."""
    counts: dict[str, int] = field(default_factory=dict)
    """Number of samples behind a metric, where it varies from batch to batch; a metric of 0 samples is left out."""


@dataclass(frozen=True)
class Engine:
    """Model, optimiser and processes that take a step together."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: torch.optim.Optimizer
    max_grad_norm: float
    accumulation_steps: int = 1
    """Batches of a step on each process; the mean over all of them is minimised."""

    def no_sync(self) -> AbstractContextManager:
        """A context for batches after which more of the same step follow: gradients are not yet reduced."""
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) else nullcontext()

    def backward(self, losses: Losses) -> Losses:
        """Add the gradient of a batch's losses to ``.grad``; returns the losses without their graph."""
        total = torch.stack(list(losses.terms.values())).sum()
        self.accelerator.backward(total / self.accumulation_steps)
        return replace(losses, terms={name: term.detach() for name, term in losses.terms.items()})

    def clip(self) -> float:
        """Limit the norm of the step's gradient; returns its norm before."""
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        assert norm is not None, "Accelerate returns a norm for every engine in use"
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def step(self) -> None:
        """Update the weights and delete the gradient."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def means(self, parts: Sequence[dict[str, float]]) -> dict[str, float]:
        """Means of values over the batches of a step, on all processes."""
        means = {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}
        if self.accelerator.num_processes == 1:
            return means
        local = torch.tensor(list(means.values()), dtype=torch.float64, device=self.accelerator.device)
        reduced = self.accelerator.reduce(local, "mean")
        assert isinstance(reduced, Tensor), "a tensor is reduced to a tensor"
        return dict(zip(means, reduced.tolist(), strict=True))

    def weighted_means(self, parts: Sequence[dict[str, float]], counts: Sequence[dict[str, int]]) -> dict[str, float]:
        """Means weighted by ``counts``, or by 1 where there is none; values whose counts are all 0 are left out."""
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
    runtime: TrainingRuntime,
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    max_grad_norm: float,
) -> Engine:
    """An engine for a network with an adapter; ``make_optimizer`` takes the adapter's weights."""
    accelerator = make_accelerator()
    prepare(network, runtime, accelerator.device, bfloat16=accelerator.mixed_precision == "bf16")
    optimizer = make_optimizer([parameter for parameter in network.parameters() if parameter.requires_grad])
    if runtime.sharding == "none":
        model, optimizer = accelerator.prepare(network, optimizer)
    else:  # sharded already: Accelerate only sets the precision
        model = accelerator.prepare_model(network, evaluation_mode=True)
        optimizer = accelerator.prepare_optimizer(optimizer)
    return Engine(accelerator, model, optimizer, max_grad_norm, runtime.accumulation_steps)


def fit(
    engine: Engine,
    batches: Batches[Batch],
    accumulate: Callable[[Batch], Losses],
    on_step: OnStep,
    checkpoint: Checkpoint,
) -> None:
    """Take one optimiser step per ``engine.accumulation_steps`` batches until they end.

    ``accumulate`` adds a batch's gradient to ``.grad`` of the trained weights and returns its losses and metrics; all
    batches but the last of a step run without gradient reduction. Training goes on from ``checkpoint``, if there is
    one; ``on_step`` is called for every step, also for those of an earlier run.

    Raises:
        FloatingPointError: a loss or the gradient is not finite; the message names every term.
        ValueError: the checkpoint is damaged.
    """
    network = engine.accelerator.unwrap_model(engine.model)
    curves: Curves = checkpoint.read(network, engine.optimizer, batches)
    for step, metrics in enumerate(curves):
        on_step(step, metrics)
    remaining = iter(batches)
    for step, first in enumerate(remaining, start=len(curves)):
        parts = []
        for number, batch in enumerate(chain([first], islice(remaining, engine.accumulation_steps - 1)), 1):
            with engine.no_sync() if number < engine.accumulation_steps else nullcontext():
                parts.append(accumulate(batch))
        terms = engine.means([{name: float(term) for name, term in part.terms.items()} for part in parts])
        if not all(map(math.isfinite, terms.values())):
            raise FloatingPointError(f"the loss is not finite at step {step}: {terms}")
        grad_norm = engine.clip()
        if not math.isfinite(grad_norm):
            raise FloatingPointError(f"the gradient is not finite at step {step}; the loss is: {terms}")
        engine.step()
        metrics = engine.weighted_means([part.metrics for part in parts], [part.counts for part in parts])
        curves.append(terms | metrics | {"grad_norm": grad_norm})
        on_step(step, curves[-1])
        checkpoint.after(network, engine.optimizer, batches, curves)
