"""Why a step comes out or does not: what the trainings measured of themselves, by arm."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from dvc.api import DVCFileSystem

from mcpipe.report.ablation import Measured
from studies.ablation.plan import Plan, Trial

Diagnoses = Mapping[str, Mapping[str, Measured]]
"""By title and arm; without arms that have no such figure."""
Rows = dict[str, dict[str, Any]]
"""Rows of a trial's ``rows.parquet``, by prompt."""
APART = "faces found: cosine with their own reference less that with the other's"
"""The title of what rows tell of who is who; zero if references are ignored or mixed up."""


def read_rows(root: Path, trial: Trial, commit: str) -> Rows:
    """The scores of a trial's pictures, out of DVC's cache."""
    with DVCFileSystem(str(root), rev=commit).open(trial.rows, "rb") as file:
        table = pq.read_table(io.BytesIO(file.read()))
    return {row["key"]: row for row in table.to_pylist()}


def read_diagnosis(root: Path, plan: Plan, trials: Sequence[Trial], commits: Mapping[str, str]) -> Diagnoses:
    """The plan's figures out of the reports of all trainings, from DVC's cache."""
    facts = {
        (trial.name, stage): _facts(root, commits[trial.name], stage)
        for trial in trials
        for stage in {wanted.stage for wanted in plan.diagnosis} & set(trial.trained)
    }
    return {
        wanted.title: over_seeds(
            trials, [fact(facts.get((trial.name, wanted.stage)), wanted.fact.split(".")) for trial in trials]
        )
        for wanted in plan.diagnosis
    }


def apart(rows: Rows) -> float | None:
    """How much nearer faces are to the person they stand for than to others who are wanted; ``None`` without both."""
    same, cross = ([cosine for row in rows.values() for cosine in row.get(kind) or []] for kind in ("same", "cross"))
    return float(np.mean(same) - np.mean(cross)) if same and cross else None


def over_seeds(trials: Sequence[Trial], values: Sequence[float | None]) -> dict[str, Measured]:
    """A figure of every trial that has it, gathered by arm."""
    figures: dict[str, list[float]] = {}
    for trial, value in zip(trials, values, strict=True):
        if value is not None:
            figures.setdefault(trial.arm.name, []).append(value)
    return {arm: Measured(sum(some) / len(some), min(some), max(some)) for arm, some in figures.items()}


def fact(facts: Any, path: Sequence[str]) -> float | None:  # noqa: ANN401  what a JSON file holds
    """The number at a path of keys, where ``*`` stands for the mean over all keys; ``None`` if there is none."""
    if not path:
        return None if facts is None else float(facts)
    if not isinstance(facts, Mapping):
        return None
    first, *rest = path
    if first != "*":
        return fact(facts.get(first), rest)
    found = [value for inner in facts.values() if (value := fact(inner, rest)) is not None]
    return sum(found) / len(found) if found else None


def _facts(root: Path, commit: str, stage: str) -> Any:  # noqa: ANN401  what a JSON file holds
    with DVCFileSystem(str(root), rev=commit).open(f"data/models/{stage}/report.json", "r") as file:
        return json.load(file)["facts"]
