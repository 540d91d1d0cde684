"""The batches of a training whose every step takes as many samples, as `mcpipe.train.loop.fit` consumes them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from mcpipe.core.progress import Note, track
from mcpipe.core.records import JSON
from mcpipe.train.loop.data import Share
from mcpipe.train.loop.runtime import is_main

B = TypeVar("B")


class StepBatches(Generic[B]):
    """The batches that this process takes of every optimiser step."""

    def __init__(
        self, batch_at: Callable[[range], B], share: Share, num_steps: int, batch_size: int, note: Note
    ) -> None:
        """Batches of ``batch_size`` samples a step over all processes, made from positions in the endless order."""
        self._batch_at, self._share, self._note = batch_at, share, note
        self._num_steps, self._batch_size = num_steps, batch_size
        self._num_done = 0

    def __iter__(self) -> Iterator[B]:
        """Iterate over the batches of the remaining steps."""
        steps = range(self._num_done, self._num_steps)
        for step in track(steps, len(steps), "training steps", self._note) if is_main() else steps:
            for positions in self._share.positions(step, self._batch_size):
                batch = self._batch_at(positions)
                self._num_done = step + 1
                yield batch

    @property
    def can_resume(self) -> bool:
        """Whether another run can go on from here: always."""
        return True

    def state_dict(self) -> dict[str, JSON]:
        """The number of steps taken."""
        return {"steps": self._num_done}

    def load_state_dict(self, state_dict: Mapping[str, JSON]) -> None:
        """Go on after the steps of an earlier run."""
        steps = state_dict["steps"]
        assert isinstance(steps, int), "written by state_dict()"
        self._num_done = steps
