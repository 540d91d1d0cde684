"""Where a training stands, kept on disk until it ends: killed at any step, the next run ends with the same weights.

Stored are the trained weights, the optimiser's state, the curves and the course's own account of how far it has come.
Random numbers are not: every draw is a pure function of the seed and its position. Nor is what the training runs on:
weights are stored whole, so that another number of processes can take it up.
"""

import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from mcpipe.core.records import JSON
from mcpipe.train.loop.runtime import agreed, collected, is_main, spread

Batch = TypeVar("Batch", covariant=True)

FILE = "training.pt"
SECONDS_BETWEEN = 60.0
"""Least time from one checkpoint to the next."""
MOST_OF_THE_TIME = 0.05
"""Part of a training's time that checkpoints may take."""

Curves = list[dict[str, float]]
"""The numbers worth watching of every step taken."""


class Course(Protocol[Batch]):
    """What a training goes through."""

    def batches(self) -> Iterator[Batch]:
        """What is left of it."""
        ...

    def standing(self) -> dict[str, JSON] | None:
        """How far it has come after the latest batch; ``None`` where it cannot be taken up again."""
        ...

    def resume(self, standing: Mapping[str, JSON]) -> None:
        """Go on from where another run stood."""
        ...


class Checkpoint:
    """The file of one training. Others of the same output, with other settings, inputs or code, have folders beside it.

    All processes call its methods together; the main one decides and writes, all of them read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_read = 0
        """Steps that an earlier run took."""
        self._file = folder / FILE
        self._due = time.monotonic() + SECONDS_BETWEEN

    def read(self, model: nn.Module, optimizer: torch.optim.Optimizer, course: Course) -> Curves:
        """Put everything back as it was; the curves of the steps taken, none if there is no checkpoint.

        Raises:
            ValueError: the file is damaged or belongs to another network.
        """
        if not agreed(self._file.is_file()):
            return []
        try:
            stored = torch.load(self._file, weights_only=True, map_location="cpu")
            parameters = _trained(model)
            with torch.no_grad():
                for name in parameters.keys() | stored["weights"].keys():
                    parameters[name].copy_(spread(stored["weights"][name], parameters[name]))
            optimizer.load_state_dict(_spread_state(stored["optimizer"], optimizer))
            course.resume(stored["standing"])
            self.num_read = len(stored["curves"])
            return stored["curves"]
        except (RuntimeError, ValueError, KeyError, IndexError, EOFError, OSError, UnpicklingError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{self._file} is damaged ({reason}); delete it to train from the start") from error

    def after(self, model: nn.Module, optimizer: torch.optim.Optimizer, course: Course, curves: Curves) -> None:
        """Write a checkpoint if it is time and the course can be taken up here."""
        if not agreed(time.monotonic() >= self._due):
            return
        standing = course.standing()
        if standing is None:
            return
        start = time.monotonic()
        weights = {name: collected(parameter.detach()) for name, parameter in _trained(model).items()}
        state = _collected_state(optimizer)
        if is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished = self._file.with_suffix(".unfinished")
            torch.save({"weights": weights, "optimizer": state, "standing": standing, "curves": curves}, unfinished)
            unfinished.replace(self._file)
        spent = time.monotonic() - start
        self._due = time.monotonic() + max(SECONDS_BETWEEN, spent / MOST_OF_THE_TIME)

    def clear(self) -> None:
        """Forget where the training stood: its outputs are written.

        What others of the same output left goes with it, unless there is a checkpoint to go on from.
        """
        if is_main():
            for folder in [self.folder, *self.folder.parent.glob("*/")]:
                if folder == self.folder or not (folder / FILE).exists():
                    shutil.rmtree(folder, ignore_errors=True)


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _collected_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    stored = optimizer.state_dict()
    state = {
        index: {name: collected(value) for name, value in values.items()} for index, values in stored["state"].items()
    }
    return {**stored, "state": state}


def _spread_state(stored: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A stored state in which what has the shape of a parameter is laid out like it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        index: {
            name: spread(value, parameters[index]) if value.shape == parameters[index].shape else value
            for name, value in values.items()
        }
        for index, values in stored["state"].items()
    }
    return {**stored, "state": state}
