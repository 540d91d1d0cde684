"""All unordered pairs of a face pool, split into a benchmark and prompts for reinforcement learning.

The paper (section 5.1) pairs 160 faces in C(160, 2) = 12,720 ways, draws 1,000 pairs for the benchmark and leaves
11,720 to reinforcement learning. That split is over pairs, so nearly every face of the benchmark is also trained on.
The split "identity" avoids this: some faces are held out, the benchmark pairs them with one another, and none of them
is trained on. Either way the benchmark is drawn at random, as in the paper, or evenly (see `mcpipe.bench.balance`).

Where images may have several numbers of people, groups of every number take the place of pairs, of each number as many.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Literal

import numpy as np
from pydantic import Field

from mcpipe.bench.balance import Labels, balanced_faces, even_groups, even_pairs
from mcpipe.core.params import Params

Pair = tuple[str, ...]
"""The people of a prompt: two, or another number where the settings say so."""
PAIRS = range(2, 3)
"""Numbers of people of the paper's benchmark."""
MOST_GROUPS = 20_000
"""Number of groups from which a draw is made; where there are more, so many of them are drawn at random first."""


class SplitParams(Params):
    """Settings of the split of pairs between the benchmark and reinforcement learning."""

    split: Literal["pair", "identity"]
    """"pair" draws benchmark pairs among all pairs (paper); "identity" also keeps their faces out of training."""
    draw: Literal["random", "even"]
    """"random" (paper), or "even": every face, and thereby every attribute, as often as the pool has it; faces that are
    held out have the attributes of the pool."""
    num_bench: int = Field(ge=2)
    """Pairs in the benchmark (paper: 1000)."""
    num_faces: int | None = Field(ge=3)
    """Faces that "identity" keeps for the benchmark; null: as few as make ``num_bench`` pairs."""
    num_rl: int = Field(ge=1)
    """Maximum number of pairs for reinforcement learning (paper: all others, 11,720)."""
    seed: int
    """Seed of the draw."""


@dataclass(frozen=True)
class Split:
    """Pairs for the benchmark and for reinforcement learning, each in alphabetical order."""

    bench: list[Pair]
    rl: list[Pair]
    reserve: list[Pair]
    """Pairs that replace pairs of the benchmark without a usable prompt, in this order; the last are also pairs for
    reinforcement learning."""


def all_pairs(faces: Sequence[str]) -> list[Pair]:
    """Every unordered pair of distinct faces, in alphabetical order for any order of ``faces``."""
    return list(combinations(sorted(set(faces)), 2))


def pair_key(pair: Pair) -> str:
    """The key under which a pair is stored."""
    return "+".join(pair)


def num_held_out(num_pairs: int) -> int:
    """The smallest number of faces with at least ``num_pairs`` pairs."""
    num_faces = 2
    while comb(num_faces, 2) < num_pairs:
        num_faces += 1
    return num_faces


def split_groups(faces: Sequence[str], params: SplitParams, labels: Labels, numbers: range) -> Split:
    """Disjoint groups of several numbers of people for the benchmark and for reinforcement learning.

    Every number gets an equal part of ``num_bench`` and ``num_rl``, the smaller ones what is left over. Pairs alone are
    split as ever (`split_pairs`).

    Raises:
        ValueError: there are too few faces.
    """
    if numbers == PAIRS:
        return split_pairs(faces, params, labels)
    rng, names = np.random.default_rng(params.seed), sorted(set(faces))
    wanted = equal_parts(params.num_bench, numbers)
    trained = held_out = names
    if params.split == "identity":
        fewest = max(fewest_faces(number, size) for size, number in wanted.items())
        num_faces = max(params.num_faces or 0, fewest)
        held_out = balanced_faces(names, labels if params.draw == "even" else {}, min(num_faces, len(names)), rng)
        trained = [name for name in names if name not in held_out]
    draw, split = even_groups if params.draw == "even" else _drawn, Split([], [], [])
    for size, number in wanted.items():
        candidates = _groups(sorted(held_out), size, rng)
        if len(candidates) < number:
            raise ValueError(
                f"{len(names)} usable faces make {len(candidates)} groups of {size}, but the benchmark asks for "
                f"{number}; lower num_bench or subjects.num_people, or add faces"
            )
        bench = draw(candidates, number, rng)
        rest = [group for group in _groups(trained, size, rng) if group not in set(bench)]
        if not rest:
            raise ValueError(
                f"no group of {size} faces is left for reinforcement learning; lower num_bench or add faces"
            )
        rl = _drawn(rest, min(equal_parts(params.num_rl, numbers)[size], len(rest)), rng)
        taken = {*bench, *rl}
        spare = [group for group in candidates if group not in taken]
        split.bench.extend(bench)
        split.rl.extend(rl)
        split.reserve.extend(_drawn(spare, min(number, len(spare)), rng))
    return Split(sorted(split.bench), sorted(split.rl), split.reserve)


def equal_parts(total: int, numbers: range) -> dict[int, int]:
    """Equal parts of a total for every number of people; the first ones take what is left over."""
    part, rest = divmod(total, len(numbers))
    return {number: part + (place < rest) for place, number in enumerate(numbers)}


def fewest_faces(num_groups: int, size: int) -> int:
    """The smallest number of faces with at least ``num_groups`` groups of a size."""
    num_faces = size
    while comb(num_faces, size) < num_groups:
        num_faces += 1
    return num_faces


def _groups(names: list[str], size: int, rng: np.random.Generator) -> list[Pair]:
    """Groups of some names in alphabetical order: all of them, or many drawn at random."""
    if comb(len(names), size) <= MOST_GROUPS:
        return list(combinations(sorted(names), size))
    drawn: set[Pair] = set()
    while len(drawn) < MOST_GROUPS:
        drawn.add(tuple(sorted(names[i] for i in rng.choice(len(names), size, replace=False))))
    return sorted(drawn)


def split_pairs(faces: Sequence[str], params: SplitParams, labels: Labels) -> Split:
    """Disjoint pairs for the benchmark and for reinforcement learning, drawn from a seed; ``labels`` may be empty.

    Raises:
        ValueError: there are too few faces for the benchmark, or none are left for reinforcement learning.
    """
    rng = np.random.default_rng(params.seed)
    candidates, rest = _by_pair(faces) if params.split == "pair" else _by_identity(faces, params, labels, rng)
    if len(candidates) < params.num_bench:
        raise ValueError(
            f"{len(set(faces))} usable faces make {len(candidates)} pairs, but the benchmark asks for "
            f"{params.num_bench}; lower num_bench or add faces"
        )
    draw = even_pairs if params.draw == "even" else _drawn
    bench = sorted(draw(candidates, params.num_bench, rng))
    taken = set(bench)
    rest = [pair for pair in rest if pair not in taken]
    if not rest:
        raise ValueError(
            f"the benchmark takes all pairs of {len(set(faces))} usable faces and leaves none for reinforcement "
            "learning; lower num_bench or add faces"
        )
    rl = sorted(_drawn(rest, min(params.num_rl, len(rest)), rng))
    spare = [pair for pair in candidates if pair not in taken]
    trained = set(rl)
    return Split(bench, rl, sorted(_drawn(spare, len(spare), rng), key=lambda pair: pair in trained))


def _by_pair(faces: Sequence[str]) -> tuple[list[Pair], list[Pair]]:
    pairs = all_pairs(faces)
    return pairs, pairs


def _by_identity(
    faces: Sequence[str], params: SplitParams, labels: Labels, rng: np.random.Generator
) -> tuple[list[Pair], list[Pair]]:
    """Pairs of held-out faces and pairs of all others; pairs across the two are not used."""
    names = sorted(set(faces))
    balanced_labels = labels if params.draw == "even" else {}
    number = max(params.num_faces or 0, num_held_out(params.num_bench))
    held_out = balanced_faces(names, balanced_labels, min(number, len(names)), rng)
    return all_pairs(held_out), all_pairs([name for name in names if name not in held_out])


def _drawn(pairs: list[Pair], number: int, rng: np.random.Generator) -> list[Pair]:
    return [pairs[i] for i in rng.choice(len(pairs), size=number, replace=False)]
