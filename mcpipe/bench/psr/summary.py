"""Scores of a system's images of PSRBench as means: over all samples with intervals, and by subset."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mcpipe.bench.intervals import Interval, IntervalParams, unit_interval
from mcpipe.bench.metrics import mean_of
from mcpipe.bench.psr.columns import METRICS
from mcpipe.bench.psr.metrics import PsrScore
from mcpipe.bench.psr.suite import SUBSETS, PsrTask
from mcpipe.core.records import JSON

SCORED = "scored"
"""The status of an image that is there."""


@dataclass(frozen=True)
class PsrScored:
    """An image with its score."""

    task: PsrTask
    picture: str
    """Name of the file; empty for a missing image."""
    status: str
    """`SCORED`, or why the image counts 0."""
    score: PsrScore

    def value(self, metric: str) -> float | None:
        """One of `METRICS`."""
        values: dict[str, float | None] = {name: vars(self.score)[name] for name in METRICS}
        return values[metric]


def means_with_intervals(scored: Sequence[PsrScored], params: IntervalParams) -> dict[str, Interval]:
    """The mean of every metric over the samples that have it; metrics with fewer than two values are left out.

    Several images of one sample count as their mean. Intervals are over references, which samples share.

    Raises:
        ValueError: there are fewer than two samples, or all have the same reference.
    """
    tasks = {item.task.key: item.task for item in scored}
    if len(tasks) < 2:
        raise ValueError(f"intervals need at least two prompts, got {len(tasks)}")
    means = {}
    for metric in METRICS:
        values = _by_sample(scored, metric)
        if len(values) > 1:
            units = [tasks[key].references for key in values]
            means[metric] = unit_interval([*values.values()], units, params)
    return means


def subset_means(scored: Sequence[PsrScored]) -> dict[str, JSON]:
    """The mean of every metric and the number of samples by subset; ``None`` for a metric without a value."""
    means: dict[str, JSON] = {}
    for subset in SUBSETS:
        items = [item for item in scored if item.task.subset == subset]
        if items:
            of_subset: dict[str, JSON] = {"samples": len({item.task.key for item in items})}
            for metric in METRICS:
                mean = mean_of([*_by_sample(items, metric).values()])
                of_subset[metric] = None if mean is None else round(mean, 6)
            means[subset] = of_subset
    return means


def counts(scored: Sequence[PsrScored]) -> dict[str, JSON]:
    """How many images lack a score of the judge, and how many the judge scored in place of a rule."""
    there = [item for item in scored if item.status == SCORED]
    return {
        "num_unparsed": sum(item.score.semantic_alignment is None for item in there),
        "num_position_by_judge": sum(
            item.task.subset == "position" and item.score.aligned_by == "judge" for item in there
        ),
        "num_not_located": sum(item.score.detection_rate < 1 for item in there),
    }


def subset_lines(scored: Sequence[PsrScored]) -> list[str]:
    """The means by subset as lines of a table for the terminal."""
    metrics = ("subject_consistency", "semantic_alignment", "preference", "detection_rate")
    lines = [
        f"{'subset':<12}{'samples':>8}" + "".join(f"{name:>12}" for name in ("SC", "SA", "Preference", "Detected"))
    ]
    for subset in SUBSETS:
        items = [item for item in scored if item.task.subset == subset]
        if items:
            means = [mean_of([*_by_sample(items, metric).values()]) for metric in metrics]
            cells = "".join(f"{'-' if mean is None else f'{mean:.3f}':>12}" for mean in means)
            lines.append(f"{subset:<12}{len({item.task.key for item in items}):>8}{cells}")
    return lines


def _by_sample(scored: Iterable[PsrScored], metric: str) -> dict[str, float]:
    """The mean over the images of each sample that has the metric, by key."""
    values: defaultdict[str, list[float | None]] = defaultdict(list)
    for item in scored:
        values[item.task.key].append(item.value(metric))
    return {key: mean for key, numbers in values.items() if (mean := mean_of(numbers)) is not None}
