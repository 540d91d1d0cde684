"""Intervals of means."""

import numpy as np
import pytest

from mcpipe.bench.intervals import IntervalParams, mean_change, mean_interval

PARAMS = IntervalParams(resamples=999, seed=3)


def test_interval_is_reproducible_and_blind_to_order():
    values = list(np.random.default_rng(0).random(40))
    once = mean_interval(values, PARAMS)
    assert mean_interval(values, PARAMS) == once
    assert mean_interval(values[::-1], PARAMS) == once
    assert mean_interval(values, IntervalParams(resamples=999, seed=4)) != once


def test_interval_has_the_width_that_theory_gives():
    values = np.random.default_rng(0).normal(size=400)
    interval = mean_interval(values.tolist(), PARAMS)
    assert interval.low < interval.value < interval.high
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_interval_of_equal_values_is_a_point():
    interval = mean_interval([0.5] * 10, PARAMS)
    assert (interval.value, interval.low, interval.high) == (0.5, 0.5, 0.5)


def test_pairing_makes_a_constant_gain_certain():
    before = np.random.default_rng(0).normal(size=30)
    change = mean_change(before.tolist(), (before + 0.1).tolist(), [[str(i)] for i in range(30)], PARAMS)
    assert change.value == pytest.approx(0.1)
    assert change.high - change.low < 1e-9


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")]])
def test_too_few_or_missing_values_are_refused(values):
    with pytest.raises(ValueError, match="interval needs"):
        mean_interval(values, PARAMS)
    with pytest.raises(ValueError, match="do not pair up"):
        mean_change([1.0, 2.0, 3.0], values, [["a"], ["b"], ["c"]], PARAMS)
