"""The order of training samples: a pure function of the seed and the position.

Where samples have several shapes, all of a step have the same one: within as many steps as there are samples, every
shape has as many steps as samples, spread evenly, and goes through its own samples in an order of its own.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Int

Groups = tuple[tuple[int, ...], ...]
"""Indices of the samples of every shape."""


def sample_index(num_samples: int, seed: int, position: int) -> int:
    """Index of the sample at a position of the endless order, which has a new permutation in every epoch."""
    epoch, place = divmod(position, num_samples)
    return int(_order(num_samples, seed, epoch)[place])


@lru_cache(maxsize=32)
def _order(num_samples: int, seed: int, epoch: int) -> Int[np.ndarray, " samples"]:
    return np.random.default_rng((seed, epoch)).permutation(num_samples)


def grouped_index(groups: Groups, seed: int, batch_size: int, position: int) -> int:
    """Index of the sample at a position, where every step of ``batch_size`` positions has samples of one group.

    With a single group it is that of `sample_index`.
    """
    step, place = divmod(position, batch_size)
    sizes = tuple(len(group) for group in groups)
    round_, turn = divmod(step, sum(sizes))
    group, number = _turns(sizes)[turn]
    members = groups[group]
    return members[sample_index(len(members), seed, (round_ * len(members) + number) * batch_size + place)]


@lru_cache(maxsize=8)
def _turns(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """The group of every step of a round, in which each group has as many steps as members, and its steps before."""
    moments = [((number + 0.5) / size, group, number) for group, size in enumerate(sizes) for number in range(size)]
    return [(group, number) for _, group, number in sorted(moments)]
