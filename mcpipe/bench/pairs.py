"""Who appears together: all unordered pairs of a face pool, split into a benchmark and prompts for the last stage.

The paper (section 5.1) pairs 160 faces in C(160, 2) = 12,720 ways, draws 1,000 pairs for the benchmark and leaves
11,720 to reinforcement learning. That split is over pairs, so nearly every face of the benchmark is also trained on.
The split "identity" mends it: a few faces are held out, the benchmark pairs them with one another, and none of them
is trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Literal

import numpy as np
from pydantic import Field

from mcpipe.params import Params

Pair = tuple[str, str]


class SplitParams(Params):
    """How pairs are divided between the benchmark and reinforcement learning."""

    split: Literal["pair", "identity"]
    """"pair" draws benchmark pairs among all pairs (paper); "identity" also keeps their faces out of training."""
    num_bench: int = Field(ge=2)
    """Pairs in the benchmark (paper: 1000)."""
    num_rl: int = Field(ge=1)
    """At most so many pairs for reinforcement learning (paper: all others, 11,720)."""
    seed: int
    """Of the draw."""


@dataclass(frozen=True)
class Split:
    """Pairs for the benchmark and for reinforcement learning, each in alphabetical order."""

    bench: list[Pair]
    rl: list[Pair]


def all_pairs(faces: Sequence[str]) -> list[Pair]:
    """Every unordered pair of distinct faces, in alphabetical order whatever the order of ``faces``."""
    return list(combinations(sorted(set(faces)), 2))


def pair_key(pair: Pair) -> str:
    """The key under which a pair is stored."""
    return "+".join(pair)


def num_held_out(num_pairs: int) -> int:
    """The fewest faces among which there are ``num_pairs`` pairs."""
    num_faces = 2
    while comb(num_faces, 2) < num_pairs:
        num_faces += 1
    return num_faces


def split_pairs(faces: Sequence[str], params: SplitParams) -> Split:
    """Disjoint random pairs for the benchmark and for reinforcement learning.

    Raises:
        ValueError: there are too few faces for the benchmark, or none are left for reinforcement learning.
    """
    rng = np.random.default_rng(params.seed)
    candidates, rest = _by_pair(faces) if params.split == "pair" else _by_identity(faces, params, rng)
    if len(candidates) < params.num_bench:
        raise ValueError(
            f"{len(set(faces))} usable faces make {len(candidates)} pairs, but the benchmark asks for "
            f"{params.num_bench}; lower num_bench or add faces"
        )
    bench = _drawn(candidates, params.num_bench, rng)
    taken = set(bench)
    rest = [pair for pair in rest if pair not in taken]
    if not rest:
        raise ValueError(
            f"the benchmark takes all pairs of {len(set(faces))} usable faces and leaves none for reinforcement "
            "learning; lower num_bench or add faces"
        )
    return Split(bench, _drawn(rest, min(params.num_rl, len(rest)), rng))


def _by_pair(faces: Sequence[str]) -> tuple[list[Pair], list[Pair]]:
    pairs = all_pairs(faces)
    return pairs, pairs


def _by_identity(faces: Sequence[str], params: SplitParams, rng: np.random.Generator) -> tuple[list[Pair], list[Pair]]:
    """Pairs of held-out faces and pairs of all others; pairs across the two are not used."""
    names = sorted(set(faces))
    rng.shuffle(names)
    held_out = num_held_out(params.num_bench)
    return all_pairs(names[:held_out]), all_pairs(names[held_out:])


def _drawn(pairs: list[Pair], number: int, rng: np.random.Generator) -> list[Pair]:
    chosen = rng.choice(len(pairs), size=number, replace=False)
    return [pairs[i] for i in sorted(chosen)]
