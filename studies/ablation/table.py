"""From scores per picture to claims: means, changes between arms, and whether the paper's order comes out.

Every arm draws the same prompts from the same noise with each seed, so scores form a block seeds x prompts, and changes
are paired. Seeds and prompts are resampled independently of each other: a claim has to hold for other trainings and for
other prompts. With three seeds the first of these can be judged coarsely only.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from mcpipe.bench.intervals import CONFIDENCE, Interval, IntervalParams
from mcpipe.report.ablation import Change
from mcpipe.report.published import ABLATION
from mcpipe.report.published import METRICS as PUBLISHED_METRICS
from studies.ablation.plan import Arm, Plan

Block = Float[np.ndarray, "seeds prompts"]
Scores = Mapping[str, Mapping[str, Block]]
"""By arm and metric."""


def block_interval(block: Block, params: IntervalParams) -> Interval:
    """The mean of a block with its percentile bootstrap interval over seeds and prompts.

    Raises:
        ValueError: a score is missing or not a number.
    """
    if not np.isfinite(block).all():
        raise ValueError("an interval needs finite values; a score is missing or not a number")
    random = np.random.default_rng(params.seed)
    seeds, prompts = block.shape
    rows = random.integers(seeds, size=(params.resamples, seeds))
    columns = random.integers(prompts, size=(params.resamples, prompts))
    means = np.array([block[np.ix_(r, c)].mean() for r, c in zip(rows, columns, strict=True)])
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(block.mean()), float(low), float(high))


def means(scores: Scores, params: IntervalParams) -> dict[str, dict[str, Interval]]:
    """Every arm's means by metric."""
    return {
        arm: {metric: block_interval(block, params) for metric, block in blocks.items()}
        for arm, blocks in scores.items()
    }


def changes(scores: Scores, plan: Plan) -> list[Change]:
    """Every comparison of the plan in every metric."""
    arms = {arm.name: arm for arm in plan.arms}
    return [
        Change(
            before,
            after,
            metric,
            block_interval(scores[after][metric] - scores[before][metric], plan.interval),
            _published_change(arms[before], arms[after], metric),
        )
        for before, after in plan.comparisons
        for metric in scores[after]
    ]


def tally(found: Sequence[Change]) -> dict[str, int]:
    """How often each verdict was reached on steps that the paper publishes."""
    verdicts = [change.verdict for change in found if change.published is not None]
    return {verdict: verdicts.count(verdict) for verdict in ("comes out", "undecided", "reversed")}


def _published_change(before: Arm, after: Arm, metric: str) -> float | None:
    rows = {row.name: row.human for row in ABLATION.rows}
    if before.published is None or after.published is None or metric not in PUBLISHED_METRICS:
        return None
    column = PUBLISHED_METRICS.index(metric)
    return round(rows[after.published][column] - rows[before.published][column], 4)
