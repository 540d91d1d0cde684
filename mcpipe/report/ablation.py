"""Results of an ablation in ``ablation.json``: scores of every arm, steps between arms, and diagnoses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, JsonValue

from mcpipe.bench.intervals import Interval


@dataclass(frozen=True)
class Change:
    """The change of a metric from one arm to another on the same prompts and noise."""

    before: str
    after: str
    metric: str
    change: Interval
    published: float | None
    """The same change in the paper's table, if it has both rows and the metric."""

    @property
    def direction(self) -> str:
        """Whether the metric rises or falls; undecided while zero lies in the interval."""
        return "undecided" if not self.change.excludes_zero else "rises" if self.change.value > 0 else "falls"

    @property
    def verdict(self) -> str:
        """Whether the paper's direction comes out; undecided while zero lies in the interval."""
        if self.published is None:
            return "no published step"
        if not self.change.excludes_zero:
            return "undecided"
        return "comes out" if (self.change.value > 0) == (self.published > 0) else "reversed"

    @property
    def reason(self) -> str:
        """Reason why a step is undecided, by its interval; empty for other steps."""
        if self.published is None or self.verdict != "undecided":
            return ""
        if not self.change.low <= self.published <= self.change.high:
            return "a step of the paper's size is ruled out here"
        finest = max(self.change.value - self.change.low, self.change.high - self.change.value)
        if abs(self.published) < finest:
            return f"the paper's step is finer than what can be told apart here, {finest:.3f}"
        return "both no step and the paper's are possible"


@dataclass(frozen=True)
class SeedRange:
    """A figure over the seeds of an arm: its mean, lowest and highest value."""

    value: float
    low: float
    high: float


class RecordedArm(BaseModel):
    """A row of the table."""

    name: str
    title: str


class RecordedPlan(BaseModel):
    """The part of an ablation's plan that the page shows."""

    model_config = ConfigDict(frozen=True)

    seeds: list[int]
    settings: dict[str, JsonValue]
    """Settings of every arm where they differ from params.yaml."""
    arms: list[RecordedArm]


class Ablation(BaseModel):
    """A finished ablation."""

    model_config = ConfigDict(frozen=True)

    commit: str
    plan: RecordedPlan
    prompts: int
    means: Mapping[str, Mapping[str, Interval]]
    """By arm and metric."""
    changes: Sequence[Change]
    verdicts: Mapping[str, int]
    """How often each was reached on steps that the paper publishes."""
    diagnosis: Mapping[str, Mapping[str, SeedRange]] = {}
    """Figures from the reports of the trainings, by title and arm."""

    @property
    def titles(self) -> dict[str, str]:
        """Titles of the arms, by name."""
        return {arm.name: arm.title for arm in self.plan.arms}

    @property
    def metrics(self) -> list[str]:
        """Those of the table, in order."""
        return list(next(iter(self.means.values())))

    @property
    def steps(self) -> list[tuple[str, str, list[Change]]]:
        """Changes by the titles of the arms before and after, in the order of the plan."""
        steps: dict[tuple[str, str], list[Change]] = {}
        for change in self.changes:
            steps.setdefault((self.titles[change.before], self.titles[change.after]), []).append(change)
        return [(*pair, changes) for pair, changes in steps.items()]
