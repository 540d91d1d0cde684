"""Where a training stands, kept on disk until it ends: killed at any step, the next run ends with the same weights.

Stored are the trained weights, the optimiser's state, the curves and the course's own account of how far it has come.
Random numbers are not: every draw is a pure function of the seed and its position.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Protocol, TypeVar

import torch
from torch import nn

from mcpipe.records import JSON

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
    """The file of one training. A training with other settings, inputs or code has to have another folder."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._due = time.monotonic() + SECONDS_BETWEEN

    def read(self, model: nn.Module, optimizer: torch.optim.Optimizer, course: Course) -> Curves:
        """Put everything back as it was; the curves of the steps taken, none if there is no checkpoint.

        Raises:
            ValueError: the file is damaged or belongs to another network.
        """
        if not self._file.is_file():
            return []
        try:
            stored = torch.load(self._file, weights_only=True, map_location="cpu")
            parameters = _trained(model)
            for name in parameters.keys() | stored["weights"].keys():
                parameters[name].data.copy_(stored["weights"][name])
            optimizer.load_state_dict(stored["optimizer"])
            course.resume(stored["standing"])
            return stored["curves"]
        except (RuntimeError, ValueError, KeyError, EOFError, OSError, UnpicklingError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{self._file} is damaged ({reason}); delete it to train from the start") from error

    def after(self, model: nn.Module, optimizer: torch.optim.Optimizer, course: Course, curves: Curves) -> None:
        """Write a checkpoint if it is time and the course can be taken up here."""
        if time.monotonic() < self._due:
            return
        standing = course.standing()
        if standing is None:
            return
        start = time.monotonic()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._file.with_suffix(".unfinished")
        weights = {name: parameter.detach() for name, parameter in _trained(model).items()}
        stored = {"weights": weights, "optimizer": optimizer.state_dict(), "standing": standing, "curves": curves}
        torch.save(stored, unfinished)
        unfinished.replace(self._file)
        spent = time.monotonic() - start
        self._due = time.monotonic() + max(SECONDS_BETWEEN, spent / MOST_OF_THE_TIME)

    def clear(self) -> None:
        """Forget where the training stood: its outputs are written."""
        self._file.unlink(missing_ok=True)


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
