"""Several processes that share the prompts of an iteration: who takes which, and sums and lists over all of them.

Every group is drawn whole by one process, exactly as a single process would draw it.
"""

from collections import Counter
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from torch import Tensor

T = TypeVar("T")


def own_places(num_prompts: int) -> range:
    """The prompts of an iteration that this process takes; the first process takes the first ones.

    Raises:
        ValueError: processes would take different numbers of them.
    """
    state = PartialState()
    size, rest = divmod(num_prompts, state.num_processes)
    if rest:
        raise ValueError(
            f"{num_prompts} prompts per iteration cannot be split over {state.num_processes} processes; make "
            "prompts_per_iteration a multiple of them"
        )
    return range(state.process_index * size, (state.process_index + 1) * size)


def gathered(items: list[T]) -> list[T]:
    """The items of all processes, the first process's first."""
    return gather_object(items)


def counted(counts: Counter[str]) -> Counter[str]:
    """Sums of the counts of all processes."""
    return sum(gathered([counts]), Counter())


def summed(tensors: list[Tensor]) -> list[Tensor]:
    """Sums over all processes."""
    if PartialState().num_processes == 1:
        return tensors
    flat = reduce(torch.cat([tensor.flatten() for tensor in tensors]), "sum")
    assert isinstance(flat, Tensor), "a tensor comes back as one"
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
