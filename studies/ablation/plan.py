"""Which experiments make the ablation: what all have in common, then every arm with every seed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from mcpipe.bench.intervals import IntervalParams
from mcpipe.core.params import Params, check_params, parse_yaml
from mcpipe.report.published import ABLATION

Scalar = float | int | str | bool | None
Setting = Scalar | list[Scalar]
TRAININGS = ("train_single", "train_multi", "train_rl")
"""Each goes on from the one before."""
SHARED = "shared"
"""Name of the experiment that runs before all others."""


class Arm(Params):
    """A row of the table."""

    name: str = Field(pattern=r"^[a-z][a-z0-9]*$")
    title: str
    judged: Literal["train_single", "train_multi", "train_rl"]
    """The training stage whose pictures are judged."""
    settings: dict[str, Setting]
    """By dotted key of params.yaml."""
    published: str | None
    """The row of the paper's table 2, if it has one."""


class Diagnosis(Params):
    """A figure out of the reports of the trainings, which tells why a step comes out or does not."""

    title: str
    stage: Literal["train_single", "train_multi", "train_rl"]
    fact: str
    """Dotted path among the stage's facts; a part ``*`` is the mean over all keys."""


class Plan(Params):
    """The whole ablation."""

    seeds: list[int] = Field(min_length=1)
    seeded: dict[str, int]
    """Settings that a seed changes, and the factor by which it is multiplied."""
    jobs: int = Field(ge=1)
    """Experiments at a time."""
    settings: dict[str, Setting]
    """Settings of every arm, by dotted key of params.yaml; any stage's."""
    shared: list[str]
    """Stages that are the same in every arm: run first and once, so that nobody waits for them or runs them twice."""
    diagnosis: list[Diagnosis]
    arms: list[Arm]
    comparisons: list[list[str]]
    """Names of two arms: before, after."""
    interval: IntervalParams

    @model_validator(mode="after")
    def _fits(self) -> "Plan":
        names = [arm.name for arm in self.arms]
        if len({*names, SHARED}) <= len(names):
            raise ValueError(f"names of arms are used once, and {SHARED!r} is taken: {names}")
        for pair in self.comparisons:
            if len(pair) != 2 or not set(pair) <= set(names):
                raise ValueError(f"a comparison names two of {names}, not {pair}")
        if unknown := {arm.published for arm in self.arms} - {row.name for row in ABLATION.rows} - {None}:
            raise ValueError(f"no such rows in {ABLATION.source}: {sorted(map(str, unknown))}")
        if self.jobs > len(self.seeds):
            raise ValueError(f"{self.jobs} jobs for {len(self.seeds)} seeds would train the same thing at once")
        return self


class Experiment(Params):
    """What DVC runs under a name."""

    name: str
    targets: list[str]
    """The stages that it ends with."""
    settings: dict[str, Setting]
    """All that differs from params.yaml, by dotted key."""

    @property
    def changes(self) -> list[str]:
        """``key=value``, as ``dvc exp run -S`` takes them."""
        return [f"{key}={_as_override(value)}" for key, value in self.settings.items()]

    def differs(self, params: Mapping[str, Any]) -> str | None:
        """The first setting in which a params.yaml differs from this experiment, or ``None``."""
        for key, wanted in self.settings.items():
            found: Any = params
            for part in key.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
            if found != wanted:
                return f"{key} {found}, not {wanted}"
        return None


class Trial(Experiment):
    """One arm with one seed."""

    arm: Arm
    seed: int

    @property
    def rows(self) -> str:
        """Where its judge writes a row per picture."""
        return f"data/results/{self.arm.judged}/rows.parquet"

    @property
    def trained(self) -> tuple[str, ...]:
        """The trainings that it went through; other outputs at its commit are those of the default run."""
        return TRAININGS[: TRAININGS.index(self.arm.judged) + 1]


def read_plan(file: Path) -> Plan:
    """The plan in a YAML file.

    Raises:
        ValueError: it contradicts itself.
    """
    return check_params(parse_yaml(file.read_text()), Plan, source=f"{file}: ")


def preparation(plan: Plan) -> Experiment:
    """What all arms have in common."""
    return Experiment(name=SHARED, targets=plan.shared, settings=plan.settings)


def trials(plan: Plan) -> list[Trial]:
    """Every arm with every seed; seeds change fastest, so that neighbours share no training."""
    found = []
    for arm in plan.arms:
        for seed in plan.seeds:
            seeded: dict[str, Setting] = {key: factor * seed for key, factor in plan.seeded.items()}
            settings = plan.settings | arm.settings | seeded
            target = f"evaluate@{arm.judged}"
            found.append(Trial(name=f"{arm.name}-s{seed}", targets=[target], settings=settings, arm=arm, seed=seed))
    return found


def _as_override(value: Setting) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_as_override, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
