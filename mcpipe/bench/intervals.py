"""How far a mean over pictures can be trusted: percentile bootstrap intervals, reproducible from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from scipy.stats import bootstrap

from mcpipe.core.params import Params

CONFIDENCE = 0.95
"""Share of the resampled means inside an interval."""
RESAMPLES_AT_ONCE = 1000
"""Bounds memory; each batch holds this many copies of the values."""


class IntervalParams(Params):
    """How intervals are drawn."""

    resamples: int = Field(ge=100)
    """How many resampled means."""
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


def mean_change(before: Sequence[float], after: Sequence[float], params: IntervalParams) -> Interval:
    """The mean difference of paired values, such as two models' scores on the same prompts, with its interval.

    Raises:
        ValueError: the values do not pair up, or see `mean_interval`.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} values before and {len(after)} after do not pair up")
    return mean_interval([b - a for a, b in zip(before, after, strict=True)], params)
