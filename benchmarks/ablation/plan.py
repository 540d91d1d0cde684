"""Which experiments make the ablation: every arm with every seed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator

from mcpipe.bench.bootstrap import IntervalParams
from mcpipe.bench.published import ABLATION
from mcpipe.params import Params, check_params

Setting = float | int | str | bool | None


class Arm(Params):
    """A row of the table."""

    name: str = Field(pattern=r"^[a-z][a-z0-9]*$")
    title: str
    judged: str
    """The training stage whose pictures are judged."""
    settings: dict[str, Setting]
    """By dotted key of params.yaml."""
    published: str | None
    """The row of the paper's table 2, if it has one."""


class Plan(Params):
    """The whole ablation."""

    seeds: list[int] = Field(min_length=1)
    seeded: dict[str, int]
    """Settings that a seed changes, and the factor by which it is multiplied."""
    jobs: int = Field(ge=1)
    """Experiments at a time."""
    settings: dict[str, Setting]
    """Of every arm."""
    arms: list[Arm]
    comparisons: list[list[str]]
    """Names of two arms: before, after."""
    interval: IntervalParams

    @model_validator(mode="after")
    def _fits(self) -> "Plan":
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"two arms have one name: {names}")
        for pair in self.comparisons:
            if len(pair) != 2 or not set(pair) <= set(names):
                raise ValueError(f"a comparison names two of {names}, not {pair}")
        if unknown := {arm.published for arm in self.arms} - {row.name for row in ABLATION.rows} - {None}:
            raise ValueError(f"no such rows in {ABLATION.source}: {sorted(map(str, unknown))}")
        if self.jobs > len(self.seeds):
            raise ValueError(f"{self.jobs} jobs for {len(self.seeds)} seeds would train the same thing at once")
        return self


class Experiment(Params):
    """One arm with one seed, as DVC runs it."""

    arm: Arm
    seed: int
    settings: dict[str, Setting]
    """All that differs from params.yaml, by dotted key."""

    @property
    def changes(self) -> list[str]:
        """``key=value``, as ``dvc exp run -S`` takes them."""
        return [f"{key}={_as_override(value)}" for key, value in self.settings.items()]

    @property
    def name(self) -> str:
        """Its name in DVC."""
        return f"{self.arm.name}-s{self.seed}"

    def differs(self, params: Mapping[str, Any]) -> str | None:
        """The first setting in which a params.yaml differs from this experiment, or ``None``."""
        for key, wanted in self.settings.items():
            found: Any = params
            for part in key.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
            if found != wanted:
                return f"{key} {found}, not {wanted}"
        return None

    @property
    def target(self) -> str:
        """The stage that it ends with."""
        return f"evaluate@{self.arm.judged}"

    @property
    def rows(self) -> str:
        """Where that stage writes a row per picture."""
        return f"data/results/{self.arm.judged}/rows.parquet"


def read_plan(file: Path) -> Plan:
    """The plan in a YAML file.

    Raises:
        ValueError: it contradicts itself.
    """
    return check_params(yaml.safe_load(file.read_text()), Plan, source=f"{file}: ")


def experiments(plan: Plan) -> list[Experiment]:
    """Every arm with every seed; seeds change fastest, so that neighbours share no training."""
    found = []
    for arm in plan.arms:
        for seed in plan.seeds:
            seeded = {key: factor * seed for key, factor in plan.seeded.items()}
            found.append(Experiment(arm=arm, seed=seed, settings=plan.settings | arm.settings | seeded))
    return found


def _as_override(value: Setting) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
