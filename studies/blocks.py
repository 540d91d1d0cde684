"""Means of scores and changes between arms, with bootstrap intervals over seeds and a second sampled unit.

Every arm draws the same prompts from the same noise with each seed, so scores form a block of seeds and prompts, and
changes are paired. Seeds and units are resampled independently of each other: a claim has to hold for other trainings
and for other prompts or people. With three seeds the first of these can be judged coarsely only.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from mcpipe.bench.intervals import CONFIDENCE, Interval, IntervalParams

Block = Float[np.ndarray, "seeds prompts"]
Scores = Mapping[str, Mapping[str, Block]]
"""By arm and metric."""
Units = Sequence[Sequence[str]]
"""The sampled units that every prompt belongs to: itself, or the people whom it names."""


def sampled_units(prompts: Sequence[str], kind: str) -> Units:
    """The units of prompts: ``prompt`` for themselves, ``identity`` for the faces that a key joins by ``+``."""
    return [[prompt] if kind == "prompt" else prompt.split("+") for prompt in prompts]


def block_interval(block: Block, units: Units, params: IntervalParams) -> Interval:
    """The mean of a block with its percentile bootstrap interval over seeds and units.

    A prompt counts as often as the product of its units' draws, so that a resample of people holds a pair for every
    way to choose both members from it.

    Raises:
        ValueError: a score is missing or not a number, or units do not fit the block.
    """
    if not np.isfinite(block).all():
        raise ValueError("an interval needs finite values; a score is missing or not a number")
    if len(units) != block.shape[1]:
        raise ValueError(f"{len(units)} prompts have units, but {block.shape[1]} have scores")
    random = np.random.default_rng(params.seed)
    places = {unit: place for place, unit in enumerate(dict.fromkeys(unit for members in units for unit in members))}
    seeds = draw_counts(random, len(block), params.resamples)
    counts = draw_counts(random, len(places), params.resamples)
    prompts = np.stack([counts[:, [places[unit] for unit in members]].prod(axis=1) for members in units], axis=1)
    totals = seeds.sum(axis=1) * prompts.sum(axis=1)
    sums = np.einsum("rs,sp,rp->r", seeds, block, prompts, optimize=True)
    low, high = np.quantile(sums[totals > 0] / totals[totals > 0], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(block.mean()), float(low), float(high))


def draw_counts(random: np.random.Generator, number: int, resamples: int) -> Float[np.ndarray, "resamples number"]:
    """How often each of some things is drawn in every resample of as many, with replacement."""
    draws = random.integers(number, size=(resamples, number))
    offsets = number * np.arange(resamples)[:, None]
    return np.bincount((draws + offsets).ravel(), minlength=resamples * number).reshape(resamples, number).astype(float)
