"""Who is in a pool of faces and in its pairs, by what the pool's table says of them, and how to draw evenly.

Attributes are those that somebody gave (gender, age, ethnicity; hair and skin in the puppet world). None is guessed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Labels = Mapping[str, Mapping[str, str]]
"""By face, what its attributes are."""
NOT_GIVEN = "not given"


def counts(attribute: str, faces: Iterable[str], labels: Labels) -> dict[str, int]:
    """How often each value of an attribute appears; a face counts as often as it is named."""
    appearances = Counter(labels.get(face, {}).get(attribute) or NOT_GIVEN for face in faces)
    return dict(sorted(appearances.items()))


def evenness(frequencies: Mapping[str, int]) -> float:
    """Entropy of the values over the largest it could be for so many values: 1 if all are equally frequent."""
    share = np.array(list(frequencies.values()), np.float64) / sum(frequencies.values())
    return float(-(share * np.log(share)).sum() / np.log(len(share))) if len(share) > 1 else 1.0


def largest_gap(part: Mapping[str, int], pool: Mapping[str, int]) -> float:
    """The largest difference, over values, between a value's share in a part and in the whole, in [0, 1]."""
    num_part, num_pool = max(sum(part.values()), 1), sum(pool.values())
    return max(abs(part.get(value, 0) / num_part - number / num_pool) for value, number in pool.items())


def balanced_faces(faces: list[str], labels: Labels, number: int, rng: np.random.Generator) -> list[str]:
    """So many faces, drawn one after another such that every value keeps the share that it has among all faces.

    Of faces that would do equally well a random one is taken; without labels the draw is plainly random.
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


def even_pairs(pairs: Sequence[tuple[str, str]], number: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """So many pairs, drawn such that every face appears as often as the others, as far as the pairs allow.

    Again and again the face that has appeared least is paired with the least seen of its partners, a random one of
    several. What holds for faces holds for their attributes: the pairs have those of the pool.
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
