"""What stands beside a checkpoint: its measured figures and a card for the reader."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mcpipe.params import Params

FIGURES = "metrics.json"
CURVES = "curves.json"
SIGNIFICANT_DIGITS = 4


@dataclass(frozen=True)
class Measured:
    """The outcome of one build."""

    name: str
    metrics: Mapping[str, float]
    """On people and scenes that were not trained on."""
    curves: Mapping[str, list[float]]
    """Of the training, by step."""
    params: Params
    """The recipe."""


@dataclass(frozen=True)
class Card:
    """What cannot be measured."""

    title: str
    what: str
    """Class, format and purpose."""
    data: str
    limits: str
    bars: Mapping[str, str]
    """By metric, what it means."""


def write_measured(folder: Path, measured: Measured) -> None:
    """Write the figures and the curves beside a checkpoint, and let everybody read all of it."""
    metrics = {name: _rounded(value) for name, value in measured.metrics.items()}
    curves = {name: [_rounded(value) for value in values] for name, values in measured.curves.items()}
    (folder / FIGURES).write_text(json.dumps({measured.name: metrics}, indent=1) + "\n")
    (folder / CURVES).write_text(json.dumps(curves) + "\n")
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)


def write_card(folder: Path, card: Card, measured: Measured) -> None:
    """Write figures, curves and README.md."""
    write_measured(folder, measured)
    rows = [f"| {name} | {_rounded(value)} | {card.bars.get(name, '')} |" for name, value in measured.metrics.items()]
    recipe = json.dumps(measured.params.model_dump(), indent=1)
    (folder / "README.md").write_text(
        f"# {card.title}\n\n{card.what}\n\n## Data\n\n{card.data}\n\n## Figures\n\n"
        "On people and scenes that were not trained on.\n\n| metric | value | meaning |\n|---|---|---|\n"
        + "\n".join(rows)
        + f"\n\n## Recipe\n\n```json\n{recipe}\n```\n\n## Limits\n\n{card.limits}\n"
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
