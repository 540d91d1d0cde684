"""Means and changes of the benchmark's scores, which every study has, as data and as tables."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic

from mcpipe.bench.intervals import Interval, observed_interval
from mcpipe.bench.tables import LABELS
from mcpipe.report.ablation import Change
from studies.blocks import Scores, sampled_units
from studies.plan import P
from studies.trials import Trial, scores_of

Published = Callable[[str, str, str], float | None]
"""The paper's change between two arms in a metric; ``None`` if it has none."""


@dataclass(frozen=True)
class Summary(Generic[P]):
    """Scores of a finished study."""

    plan: P
    commit: str
    prompts: Sequence[str]
    scores: Scores
    means: Mapping[str, Mapping[str, Interval]]
    """By arm and metric."""
    changes: Sequence[Change]

    @property
    def metrics(self) -> list[str]:
        """Metrics of the tables, in order."""
        return list(next(iter(self.means.values())))

    @property
    def units(self) -> str:
        """What intervals resample besides seeds, in words."""
        return {"prompt": "prompts", "identity": "identities"}[self.plan.sampled_unit]

    @property
    def settings(self) -> str:
        """The settings of every arm, in Markdown."""
        return ", ".join(f"`{key}` {value}" for key, value in self.plan.settings.items())

    def as_json(self) -> dict[str, Any]:
        """The plan, with controls among the arms, and every mean."""
        return {
            "commit": self.commit,
            "plan": self.plan.model_dump() | {"arms": [arm.model_dump() for arm in self.plan.rows]},
            "prompts": len(self.prompts),
            "means": {arm: {metric: asdict(mean) for metric, mean in row.items()} for arm, row in self.means.items()},
        }

    def means_table(self) -> str:
        """A row per arm, a column per metric."""
        rows = [[self.plan.titles[arm], *map(cell, row.values())] for arm, row in self.means.items()]
        return markdown_table(["arm", *(LABELS[metric] for metric in self.metrics)], rows)

    def changes_table(self, **columns: Callable[[Change], str]) -> str:
        """A row per comparison and metric; further columns by title."""
        rows = []
        for change in self.changes:
            arms = [self.plan.titles[change.before], self.plan.titles[change.after]]
            further = [column(change) for column in columns.values()]
            rows.append([*arms, LABELS[change.metric], cell(change.change, "+"), *further])
        return markdown_table(["from", "to", "metric", "change", *columns], rows)

    def write_scores(self, file: Path) -> None:
        """Write a line per arm, seed and prompt as CSV."""
        rows = [
            [arm, seed, prompt, *(f"{blocks[metric][s, p]:.6f}" for metric in self.metrics)]
            for arm, blocks in self.scores.items()
            for s, seed in enumerate(self.plan.seeds)
            for p, prompt in enumerate(self.prompts)
        ]
        write_csv(file, ["arm", "seed", "prompt", *self.metrics], rows)


def summarise(
    plan: P, commit: str, trials: Sequence[Trial], metrics: Sequence[str], published: Published
) -> Summary[P]:
    """Means of all arms and the plan's comparisons, with intervals.

    Raises:
        ValueError: trials answered different prompts, or a score is missing.
    """
    prompts, scores = scores_of(trials, metrics)
    units = sampled_units(prompts, plan.sampled_unit)
    means = {
        arm: {metric: observed_interval(block, units, plan.interval) for metric, block in blocks.items()}
        for arm, blocks in scores.items()
    }
    changes = []
    for before, after in plan.comparisons:
        for metric in metrics:
            paired = observed_interval(scores[after][metric] - scores[before][metric], units, plan.interval)
            changes.append(Change(before, after, metric, paired, published(before, after, metric)))
    return Summary(plan, commit, prompts, scores, means, changes)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def cell(interval: Interval, sign: str = "") -> str:
    """A mean with its interval; ``sign`` is ``+`` for changes."""
    return f"{interval.value:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def write_csv(file: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table as CSV."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, *rows])
