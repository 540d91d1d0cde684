"""The plan of a study, and the experiments that it consists of."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import Field, model_validator

from mcpipe.bench.intervals import IntervalParams
from mcpipe.core.errors import one_line
from mcpipe.core.params import Params, check_params, parse_yaml

Setting = float | int | str | bool | None | list[float | int | str | bool | None]
Training = Literal["train_single", "train_multi", "train_rl"]
TRAININGS: tuple[Training, ...] = ("train_single", "train_multi", "train_rl")
"""Training stages; each continues from the one before."""
NAME = r"^[a-z][a-z0-9]*$"


class Arm(Params):
    """A system under comparison: a row of the tables."""

    name: str = Field(pattern=NAME)
    title: str
    evaluated: Training
    """The training stage whose images are scored."""
    settings: dict[str, Setting]
    """Changes of params.yaml, by dotted key."""

    @property
    def trainings(self) -> tuple[Training, ...]:
        """The trainings that the arm's images depend on, first to last."""
        return TRAININGS[: TRAININGS.index(self.evaluated) + 1]


class Control(Params):
    """An arm with some settings changed, run for comparison and not as a proposal."""

    name: str = Field(pattern=NAME)
    title: str
    of: str
    """Name of the arm."""
    settings: dict[str, Setting]
    """Changes of params.yaml on top of the arm's, by dotted key."""


class StudyPlan(Params):
    """Arms and controls, each run with every seed."""

    name: str = Field(pattern=NAME)
    """Names of experiments begin with it."""
    seeds: list[int] = Field(min_length=1)
    seeded: dict[str, int]
    """Settings that follow the seed, by dotted key, with the factor by which the seed is multiplied."""
    drawings: int = Field(ge=1)
    """How many times every training draws the benchmark, from different noise."""
    drawn: dict[str, int]
    """Settings that follow the number of the drawing over all seeds, with the factor by which it is multiplied."""
    settings: dict[str, Setting]
    """Changes of params.yaml in every experiment, of any stage, by dotted key."""
    arms: list[Arm] = Field(min_length=1)
    controls: list[Control]
    comparisons: list[list[str]]
    """Names of two arms or controls: before, after."""
    sampled_unit: Literal["prompt", "identity"]
    """What intervals resample besides seeds: prompts, or the people whom prompts name."""
    interval: IntervalParams

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        arms = {arm.name for arm in self.arms}
        names = [row.name for row in (*self.arms, *self.controls)]
        if len(set(names)) < len(names):
            raise ValueError(f"names of arms and controls are used once: {names}")
        if others := [control.of for control in self.controls if control.of not in arms]:
            raise ValueError(f"controls of unknown arms: {others}")
        for pair in self.comparisons:
            if len(pair) != 2 or not set(pair) <= set(names):
                raise ValueError(f"a comparison names two of {names}, not {pair}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are used once: {self.seeds}")
        return self

    @property
    def rows(self) -> list[Arm]:
        """All arms, then every control as the arm that it makes."""
        arms = {arm.name: arm for arm in self.arms}
        controls = [
            Arm(
                name=control.name,
                title=control.title,
                evaluated=arms[control.of].evaluated,
                settings=arms[control.of].settings | control.settings,
            )
            for control in self.controls
        ]
        return [*self.arms, *controls]

    @property
    def titles(self) -> dict[str, str]:
        """Titles of arms and controls by name."""
        return {arm.name: arm.title for arm in self.rows}


class Experiment(Params):
    """One arm with one seed and one drawing of the benchmark, as DVC runs it under a name."""

    name: str
    arm: Arm
    seed: int
    drawing: int
    settings: dict[str, Setting]
    """All that differs from params.yaml, by dotted key."""

    @property
    def target(self) -> str:
        """The stage with which the experiment ends."""
        return f"evaluate@{self.arm.evaluated}"

    @property
    def overrides(self) -> list[str]:
        """The settings as ``dvc exp run -S`` takes them."""
        return [f"{key}={_as_override(value)}" for key, value in self.settings.items()]

    def difference(self, base: Mapping[str, Any], params: Mapping[str, Any]) -> str | None:
        """The first setting in which ``params`` differs from ``base`` with this experiment's changes."""
        return _difference(changed(base, self.settings), params)


P = TypeVar("P", bound=StudyPlan)


def read_plan(file: Path, model: type[P]) -> P:
    """The plan in a YAML file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not valid YAML, a key is missing or unknown, or names contradict each other.
    """
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {one_line(error)}") from error
    return check_params(content, model, source=f"{file}: ")


def experiments(plan: StudyPlan) -> list[Experiment]:
    """Every arm and control with every seed and drawing; seeds vary slowest, so that whole comparisons come first."""
    planned = []
    for seed in plan.seeds:
        for arm in plan.rows:
            for drawing in range(plan.drawings):
                name = f"{plan.name}-{arm.name}-s{seed}" + f"-d{drawing}" * (plan.drawings > 1)
                seeds: dict[str, Setting] = {key: factor * seed for key, factor in plan.seeded.items()}
                noise: dict[str, Setting] = {
                    key: factor * (seed * plan.drawings + drawing) for key, factor in plan.drawn.items()
                }
                settings = plan.settings | arm.settings | seeds | noise
                planned.append(Experiment(name=name, arm=arm, seed=seed, drawing=drawing, settings=settings))
    return planned


def changed(params: Mapping[str, Any], settings: Mapping[str, Setting]) -> dict[str, Any]:
    """A copy of params.yaml's content with some settings changed.

    Raises:
        ValueError: params.yaml has no such setting.
    """
    content: Any = copy.deepcopy(dict(params))
    for key, value in settings.items():
        *path, last = key.split(".")
        section = content
        for part in path:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            raise ValueError(f"the plan changes {key}, which params.yaml does not have")
        section[last] = value
    return content


def _difference(expected: object, actual: object, path: Sequence[str] = ()) -> str | None:
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        faults = (
            _difference(expected.get(key), actual.get(key), [*path, str(key)])
            for key in dict.fromkeys([*expected, *actual])
        )
        return next((fault for fault in faults if fault), None)
    return None if expected == actual else f"{'.'.join(path)} {actual}, not {expected}"


def _as_override(value: Setting) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_as_override, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
