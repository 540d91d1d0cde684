"""The loop that trains the tiny zoo: warm-up and cosine, averaged weights, resumed where it was interrupted.

Every step draws its batch from ``(seed, step)`` alone, so that a resumed training sees what an undisturbed one sees.
"""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from transformers.utils import logging as logging_of_transformers

from mcpipe.core.params import Params
from mcpipe.core.progress import track

logger = logging.getLogger(__name__)

LOWEST_RATE = 0.02
"""Share of the learning rate at which the cosine ends."""

STEPS_BETWEEN_LINES = 100
SECONDS_BETWEEN_SAVES = 120.0
BETAS = (0.9, 0.98)


class FitParams(Params):
    """How long and how fast to train."""

    seed: int
    """Seed of initial weights, batches and noise."""
    steps: int = Field(ge=1)
    """Optimiser steps."""
    batch: int = Field(ge=1)
    """Examples a step."""
    learning_rate: float = Field(gt=0)
    """At the top of the cosine."""
    warmup_steps: int = Field(ge=0)
    """Steps over which the rate rises from 0."""
    weight_decay: float = Field(ge=0)
    """Weight decay of AdamW."""
    ema_decay: float = Field(ge=0, lt=1)
    """Decay of the averaged weights that are saved in the end; 0 saves the last ones."""


class Loss(dict[str, Tensor]):
    """Named terms of a loss; terms whose names begin with "_" are logged and not minimised."""

    def total(self) -> Tensor:
        """The sum of the minimised terms."""
        return torch.stack([term for name, term in self.items() if not name.startswith("_")]).sum()


BatchLoss = Callable[[int, np.random.Generator], Loss]
"""Function of a step and a random generator that returns the loss of the step's batch."""


def settle(seed: int) -> None:
    """Fix the seed of initial weights and keep to one thread (two oversubscribed ones are slower than one)."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    logging_of_transformers.disable_progress_bar()


def half_precision() -> torch.autocast:
    """bfloat16 arithmetic where this processor has it, which is 1.5 times faster; float32 elsewhere."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


def fit(modules: Sequence[nn.Module], loss_of: BatchLoss, params: FitParams, scratch: Path) -> dict[str, list[float]]:
    """Train the modules in place, leave them with averaged weights, and return the curve of every loss term.

    Progress is saved to ``scratch`` now and then; a later call with the same settings goes on from there.

    Raises:
        FloatingPointError: the loss is not finite; the message has every term.
    """
    weights = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=params.learning_rate, weight_decay=params.weight_decay, betas=BETAS)
    averages = [copy.deepcopy(module).requires_grad_(False) for module in modules]
    progress = Progress(scratch, params, [*modules, *averages], optimizer)
    for module in modules:
        module.train()
    steps = range(progress.step, params.steps)
    for step in track(steps, len(steps), f"training {scratch.stem}"):
        for group in optimizer.param_groups:
            group["lr"] = params.learning_rate * rate(step, params)
        torch.manual_seed(params.seed * 1_000_003 + step)
        terms = loss_of(step, np.random.default_rng([params.seed, step]))
        total = terms.total()
        if not torch.isfinite(total):
            raise FloatingPointError(f"loss is not finite at step {step}: { {n: v.item() for n, v in terms.items()} }")
        total.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _average(modules, averages, min(params.ema_decay, (1 + step) / (10 + step)))
        progress.after(step, terms)
    for module, average in zip(modules, averages, strict=True):
        module.load_state_dict(average.state_dict())
        module.eval()
    progress.end()
    return progress.curves


def rate(step: int, params: FitParams) -> float:
    """Share of the learning rate at a step: a linear rise, then half a cosine down to `LOWEST_RATE`."""
    warm = min(1.0, (step + 1) / max(params.warmup_steps, 1))
    return warm * max(LOWEST_RATE, 0.5 * (1 + math.cos(math.pi * step / params.steps)))


@torch.no_grad()
def _average(modules: Sequence[nn.Module], averages: Sequence[nn.Module], decay: float) -> None:
    for module, average in zip(modules, averages, strict=True):
        pairs = list(zip(average.state_dict().values(), module.state_dict().values(), strict=True))
        floating = [(mean, now) for mean, now in pairs if mean.is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in floating], [now for _, now in floating], 1 - decay)


class Progress:
    """How far a training has come, on disk and in curves."""

    def __init__(
        self, file: Path, params: FitParams, modules: Sequence[nn.Module], optimizer: torch.optim.Optimizer
    ) -> None:
        """Go on from ``file`` if the same settings wrote it, else begin."""
        self.step = 0
        self.curves: dict[str, list[float]] = {}
        self._recent: dict[str, list[float]] = {}
        self._file, self._params, self._modules, self._optimizer = file, params, modules, optimizer
        self._saved = time.monotonic()
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_file():
            self._resume(torch.load(file, weights_only=True))

    def after(self, step: int, terms: Loss) -> None:
        """Take note of a step; write a line or a file when it is time."""
        for name, term in terms.items():
            self._recent.setdefault(name.lstrip("_"), []).append(float(term.detach()))
        if (step + 1) % STEPS_BETWEEN_LINES == 0 or step + 1 == self._params.steps:
            means = {name: float(np.mean(values)) for name, values in self._recent.items()}
            logger.info("step %d: %s", step + 1, ", ".join(f"{name} {value:.4f}" for name, value in means.items()))
            for name, value in ({"step": step + 1} | means).items():
                self.curves.setdefault(name, []).append(value)
            self._recent = {}
        if time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES:
            self._save(step + 1)
            self._saved = time.monotonic()

    def end(self) -> None:
        """Forget the file: the training is over."""
        self._file.unlink(missing_ok=True)

    def _save(self, step: int) -> None:
        state = {
            "settings": self._params.model_dump_json(),
            "step": step,
            "curves": self.curves,
            "recent": self._recent,
            "modules": [module.state_dict() for module in self._modules],
            "optimizer": self._optimizer.state_dict(),
        }
        unfinished = self._file.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(self._file)

    def _resume(self, state: dict) -> None:
        if state["settings"] != self._params.model_dump_json():
            logger.info("%s belongs to other settings; training from the start", self._file)
            return
        for module, weights in zip(self._modules, state["modules"], strict=True):
            module.load_state_dict(weights)
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.curves, self._recent = state["step"], state["curves"], state["recent"]
        logger.info("going on from step %d", self.step)


def batches(total: int, size: int) -> Iterator[slice]:
    """Slices that cover ``total`` items, ``size`` at a time."""
    return (slice(start, min(start + size, total)) for start in range(0, total, size))
