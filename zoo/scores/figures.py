"""Figures with their bars: as a table for people and as JSON for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

SIGNIFICANT_DIGITS = 4
"""Beyond these, figures may differ between machines."""


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    metric: str
    value: float
    count: int
    """Items it is measured on."""
    of: str
    """Name of the items."""
    bar: float | None = None
    """Required value; None where there is no requirement."""
    below: bool = False
    """Whether the value must stay below the bar instead."""
    ours: bool = False
    """Whether the bar is our own; the others are those that the zoo was ordered with."""

    @property
    def met(self) -> bool | None:
        """Whether the bar is met, or None without one."""
        if self.bar is None:
            return None
        return bool(self.value < self.bar if self.below else self.value >= self.bar)

    def as_json(self) -> dict[str, object]:
        """The rounded figure as JSON, with bar and verdict if there is a requirement."""
        content: dict[str, object] = {"value": _rounded(self.value), "count": self.count, "of": self.of}
        if self.bar is None:
            return content
        return content | {"bar": self.bar, "below": self.below, "ours": self.ours, "met": self.met}


def score_table(scores: Mapping[str, Sequence[Figure]], seed: int) -> Table:
    """All figures of all checkpoints."""
    table = Table(title=f"The zoo on the world of seed {seed}", title_justify="left")
    for name, justify in (("checkpoint", "left"), ("metric", "left"), ("value", "right"), ("bar", "right")):
        table.add_column(name, justify=justify)
    table.add_column("met")
    table.add_column("measured on")
    for checkpoint, figures in scores.items():
        for place, figure in enumerate(figures):
            table.add_row(checkpoint if place == 0 else "", *_cells(figure), end_section=place == len(figures) - 1)
    return table


def missed_bars(scores: Mapping[str, Sequence[Figure]]) -> list[str]:
    """Every figure that misses its bar, as CHECKPOINT.METRIC."""
    return [f"{name}.{figure.metric}" for name, figures in scores.items() for figure in figures if figure.met is False]


def as_json(scores: Mapping[str, Sequence[Figure]], seed: int, unmeasured: Sequence[str]) -> dict[str, object]:
    """What scores.json holds; ``unmeasured`` names checkpoints that are missing or damaged."""
    return {
        "seed": seed,
        "unmeasured": list(unmeasured),
        "missed": missed_bars(scores),
        "checkpoints": {
            name: {figure.metric: figure.as_json() for figure in figures} for name, figures in scores.items()
        },
    }


def _cells(figure: Figure) -> tuple[str, str, str, str, str]:
    bar = "" if figure.bar is None else f"{'<' if figure.below else '>='} {figure.bar:g}{' (ours)' * figure.ours}"
    met = {None: "", True: "[green]yes[/]", False: "[bold red]NO[/]"}[figure.met]
    return figure.metric, f"{_rounded(figure.value):g}", bar, met, f"{figure.count} {figure.of}"


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
