"""Frequencies of attributes in a pool of faces and in its pairs, and draws that keep them even.

Attributes come from the pool's table (gender, age, ethnicity; hair and skin in the puppet world). None is predicted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Labels = Mapping[str, Mapping[str, str]]
"""Values of attributes by face and by the attribute's name."""
NOT_GIVEN = "not given"


def counts(attribute: str, faces: Iterable[str], labels: Labels) -> dict[str, int]:
    """How often each value of an attribute appears; a face counts as often as it is named."""
    appearances = Counter(labels.get(face, {}).get(attribute) or NOT_GIVEN for face in faces)
    return dict(sorted(appearances.items()))


def evenness(frequencies: Mapping[str, int]) -> float:
    """Entropy of the frequencies over its maximum for this number of values, in [0, 1]: 1 if they are equal."""
    share = np.array(list(frequencies.values()), np.float64) / sum(frequencies.values())
    return float(-(share * np.log(share)).sum() / np.log(len(share))) if len(share) > 1 else 1.0


def largest_gap(part: Mapping[str, int], pool: Mapping[str, int]) -> float:
    """The largest difference, over values, between a value's share in a part and in the pool, in [0, 1]."""
    num_part, num_pool = max(sum(part.values()), 1), sum(pool.values())
    return max(abs(part.get(value, 0) / num_part - number / num_pool) for value, number in pool.items())


def balanced_faces(faces: list[str], labels: Labels, number: int, rng: np.random.Generator) -> list[str]:
    """A draw of ``number`` faces in which every value keeps, as far as possible, the share that it has among all faces.

    Faces are drawn one after another; ties are broken at random, so that without labels the draw is random.
    """
    order: list[str] = [faces[i] for i in rng.permutation(len(faces))]
    names = sorted({(name, value) for face in order for name, value in labels.get(face, {}).items()})
    table = np.array([[labels.get(face, {}).get(name) == value for name, value in names] for face in order], float)
    share, held, free = table.mean(axis=0), np.zeros(len(names)), np.ones(len(order), bool)
    chosen = []
    for size in range(1, number + 1):
        gap = np.abs(held + table - share * size).sum(axis=1)
        best = int(np.where(free, gap, np.inf).argmin())
        held, free[best] = held + table[best], False
        chosen.append(order[best])
    return chosen


def even_pairs(pairs: Sequence[tuple[str, ...]], number: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
    """A draw of ``number`` pairs in which all faces appear equally often, as far as the pairs allow.

    The least frequent face is repeatedly paired with the least frequent of its partners; ties are broken at random.
    The attributes in the pairs therefore have the frequencies of the pool.
    """
    names = sorted({face for pair in pairs for face in pair})
    number_of = {face: i for i, face in enumerate(names)}
    free = np.zeros((len(names), len(names)), bool)
    for first, second in pairs:
        free[number_of[first], number_of[second]] = free[number_of[second], number_of[first]] = True
    appearances = np.zeros(len(names), int)
    chosen = []
    for _ in range(number):
        order = appearances + rng.uniform(0, 0.5, len(names))
        first = int(np.where(free.any(axis=1), order, np.inf).argmin())
        second = int(np.where(free[first], order, np.inf).argmin())
        free[first, second] = free[second, first] = False
        appearances[[first, second]] += 1
        chosen.append((names[min(first, second)], names[max(first, second)]))
    return chosen


def even_groups(groups: Sequence[tuple[str, ...]], number: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
    """The same of groups of any size: each next one has the least frequent faces; ties are broken at random."""
    names = sorted({face for group in groups for face in group})
    members = np.array([[names.index(face) for face in group] for group in groups])
    appearances, free = np.zeros(len(names)), np.ones(len(groups), bool)
    chosen = []
    for _ in range(number):
        order = appearances[members].sum(axis=1) + rng.uniform(0, 0.5, len(groups))
        best = int(np.where(free, order, np.inf).argmin())
        free[best] = False
        appearances[members[best]] += 1
        chosen.append(groups[best])
    return chosen
