"""Distribution of an iteration's prompts over processes, and reductions over all of them.

Every group is sampled by a single process, exactly as one process alone would sample it.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from torch.distributed import all_reduce

T = TypeVar("T")


def own_places(num_prompts: int) -> range:
    """Places of the prompts that this process takes of an iteration; the first process takes the first ones.

    Raises:
        ValueError: processes would take different numbers of prompts.
    """
    state = PartialState()
    size, rest = divmod(num_prompts, state.num_processes)
    if rest:
        raise ValueError(
            f"{num_prompts} prompts per iteration cannot be split over {state.num_processes} processes; make "
            "prompts_per_iteration a multiple of them"
        )
    return range(state.process_index * size, (state.process_index + 1) * size)


def num_processes() -> int:
    """Number of processes that train together."""
    return PartialState().num_processes


def gather(items: list[T]) -> list[T]:
    """Items of all processes, those of the first process first."""
    return gather_object(items)


def sum_counts(counts: Counter[str]) -> Counter[str]:
    """Sums of counts over all processes."""
    return sum(gather([counts]), Counter())


def sum_in_place(tensors: Iterable[Tensor]) -> None:
    """Replace every tensor by its sum over all processes, without a copy."""
    if PartialState().num_processes > 1:
        reductions = [all_reduce(tensor, async_op=True) for tensor in tensors]
        for reduction in reductions:
            assert reduction is not None, "every process belongs to the default group"
            reduction.wait()
