"""Checkpoint of a running training: a run that is killed at any step is resumed and ends with the same weights.

A checkpoint holds the trained weights, the optimiser's state, the curves, and the state of the batches. Random
generators are not stored, because every draw is a pure function of the seed and its position. All tensors are stored
whole, so that another number of processes or another sharding can resume.
"""

import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol, TypeVar

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from mcpipe.core.records import JSON
from mcpipe.train.loop.runtime import FULL_IN_MAIN, broadcast_flag, is_main, trained_weights

Batch = TypeVar("Batch", covariant=True)

FILE = "training.pt"
SECONDS_BETWEEN = 60.0
"""Least time from one checkpoint to the next."""
MOST_OF_THE_TIME = 0.05
"""Largest share of a training's time spent on writing checkpoints."""

Curves = list[dict[str, float]]
"""Metrics of every optimiser step taken."""


class Batches(Protocol[Batch]):
    """Batches of a training, whose position can be stored and restored (torch's ``Stateful``)."""

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches that remain."""
        ...

    @property
    def can_resume(self) -> bool:
        """Whether another run can go on after the latest batch."""
        ...

    def state_dict(self) -> dict[str, JSON]:
        """The position after the latest batch."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, JSON]) -> None:
        """Go on from a stored position."""
        ...


class Checkpoint:
    """The checkpoint file of one training, in a folder named by its settings, inputs and code.

    All processes call its methods together; the main process decides and writes, all processes read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_read = 0
        """Optimiser steps taken by an earlier run."""
        self._file = folder / FILE
        self._due = time.monotonic() + SECONDS_BETWEEN

    def read(self, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> Curves:
        """Restore weights, optimiser and batches; returns the curves so far, empty without a checkpoint.

        Raises:
            ValueError: the file is damaged or belongs to another network.
        """
        if not broadcast_flag(self._file.is_file()):
            return []
        try:
            stored = torch.load(self._file, weights_only=True, map_location="cpu")
            _check_names(model, stored["weights"])
            # The frozen weights are not stored, hence not strict.
            options = StateDictOptions(full_state_dict=True, strict=False)
            set_optimizer_state_dict(model, optimizer, stored["optimizer"], options=options)
            set_model_state_dict(model, stored["weights"], options=options)
            batches.load_state_dict(stored["batches"])
            self.num_read = len(stored["curves"])
            return stored["curves"]
        except (RuntimeError, ValueError, KeyError, IndexError, EOFError, OSError, UnpicklingError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{self._file} is damaged ({reason}); delete it to train from the start") from error

    def after(self, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches, curves: Curves) -> None:
        """Write a checkpoint after a step, if one is due and the batches can be resumed here."""
        if not broadcast_flag(time.monotonic() >= self._due) or not batches.can_resume:
            return
        start = time.monotonic()
        content: dict[str, Any] = {
            "weights": trained_weights(model),
            "optimizer": get_optimizer_state_dict(model, optimizer, options=FULL_IN_MAIN),
            "batches": batches.state_dict(),
            "curves": curves,
        }
        if is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished = self._file.with_suffix(".unfinished")
            torch.save(content, unfinished)
            unfinished.replace(self._file)
        seconds = time.monotonic() - start
        self._due = time.monotonic() + max(SECONDS_BETWEEN, seconds / MOST_OF_THE_TIME)

    def clear(self) -> None:
        """Delete the checkpoint of a finished training.

        Folders that other runs of the same output left beside it are deleted, unless they hold a checkpoint.
        """
        if is_main():
            for folder in [self.folder, *self.folder.parent.glob("*/")]:
                if folder == self.folder or not (folder / FILE).exists():
                    shutil.rmtree(folder, ignore_errors=True)


def _check_names(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Make sure that exactly the trained weights are stored; torch itself would keep those that are missing."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if odd := sorted(trained ^ weights.keys()):
        raise KeyError(odd[0])
