"""Percentile bootstrap intervals of means, reproducible from a seed.

The resampled units are people, where several images show the same person. Images that share a person are not
independent, and intervals that treat them as independent are too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from pydantic import Field
from scipy.stats import bootstrap

from mcpipe.core.params import Params

CONFIDENCE = 0.95
"""Share of the resampled means inside an interval."""
RESAMPLES_AT_ONCE = 1000
"""Number of resamples in a batch, which bounds memory."""

Block = Float[np.ndarray, "seeds prompts"]
Units = Sequence[Sequence[str]]
"""The sampled units of every prompt: the prompt itself, or the people whom it names."""


class IntervalParams(Params):
    """Settings of the bootstrap."""

    resamples: int = Field(ge=100)
    """Number of resampled means."""
    seed: int
    """Seed of the resampling."""


@dataclass(frozen=True)
class Interval:
    """A mean and the range in which it is expected to lie."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole range lies on one side of zero."""
        return self.low > 0 or self.high < 0


def mean_interval(values: Sequence[float], params: IntervalParams) -> Interval:
    """The mean of independent values with its percentile bootstrap interval; their order does not matter.

    Percentiles rather than the bias-corrected variant, because that one is undefined where all values are equal, as a
    detection rate may well be.

    Raises:
        ValueError: there are fewer than two values, or one is not finite.
    """
    sample = np.sort(np.asarray(values, dtype=np.float64))
    if len(sample) < 2:
        raise ValueError(f"an interval needs at least two pictures, got {len(sample)}")
    if not np.isfinite(sample).all():
        raise ValueError("an interval needs finite values; a score is missing or not a number")
    bounds = bootstrap(
        (sample,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=params.resamples,
        method="percentile",
        batch=RESAMPLES_AT_ONCE,
        rng=np.random.default_rng(params.seed),
    ).confidence_interval
    return Interval(float(sample.mean()), float(bounds.low), float(bounds.high))


def unit_interval(values: Sequence[float], units: Units, params: IntervalParams) -> Interval:
    """The mean of values, one per prompt, with its interval over the units of the prompts.

    Raises:
        ValueError: there are fewer than two values, one is not finite, or all belong to the same units.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two pictures, got {len(values)}")
    return block_interval(np.asarray([values], dtype=np.float64), units, params)


def block_interval(block: Block, units: Units, params: IntervalParams) -> Interval:
    """The mean of a block with its percentile bootstrap interval over seeds and units.

    A prompt counts as often as the product of its units' draws, so that a resample of people holds a pair for every
    way to choose both members from it (Snijders and Borgatti, 1999).

    Raises:
        ValueError: a score is missing or not a number, units do not fit the block, or there are fewer than two units.
    """
    if not np.isfinite(block).all():
        raise ValueError("an interval needs finite values; a score is missing or not a number")
    return observed_interval(block, units, params)


def observed_interval(block: Block, units: Units, params: IntervalParams) -> Interval:
    """As `block_interval`, of a block in which NaN stands for what could not be observed in an image.

    Every mean is over what was observed: of a figure of two located faces, over the images with both.

    Raises:
        ValueError: nothing was observed, units do not fit the block, or there are fewer than two units.
    """
    seen = np.isfinite(block)
    if not seen.any():
        raise ValueError("an interval needs finite values; nothing was observed")
    if len(units) != block.shape[1]:
        raise ValueError(f"{len(units)} prompts have units, but {block.shape[1]} have scores")
    random = np.random.default_rng(params.seed)
    places = {unit: place for place, unit in enumerate(dict.fromkeys(unit for members in units for unit in members))}
    if len(places) < 2:
        raise ValueError(f"an interval needs at least two prompts or people to resample, got {len(places)}")
    seeds = draw_counts(random, len(block), params.resamples)
    counts = draw_counts(random, len(places), params.resamples)
    prompts = np.stack([counts[:, [places[unit] for unit in members]].prod(axis=1) for members in units], axis=1)
    totals = np.einsum("rs,sp,rp->r", seeds, seen.astype(float), prompts, optimize=True)
    sums = np.einsum("rs,sp,rp->r", seeds, np.where(seen, block, 0.0), prompts, optimize=True)
    low, high = np.quantile(sums[totals > 0] / totals[totals > 0], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(block[seen].mean()), float(low), float(high))


def draw_counts(random: np.random.Generator, number: int, resamples: int) -> Float[np.ndarray, "resamples number"]:
    """Numbers of draws of each of ``number`` units in every resample of the same size, with replacement."""
    draws = random.integers(number, size=(resamples, number))
    offsets = number * np.arange(resamples)[:, None]
    return np.bincount((draws + offsets).ravel(), minlength=resamples * number).reshape(resamples, number).astype(float)


def mean_change(before: Sequence[float], after: Sequence[float], units: Units, params: IntervalParams) -> Interval:
    """The mean difference of paired values, such as two models' scores on the same prompts, with its interval.

    Raises:
        ValueError: the values do not pair up, or see `unit_interval`.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} values before and {len(after)} after do not pair up")
    return unit_interval([b - a for a, b in zip(before, after, strict=True)], units, params)
