"""What stands beside a checkpoint: its measured figures, the curves of its training, and a card for the reader."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from mcpipe.core.params import Params

FIGURES = "metrics.json"
CURVES = "curves.json"
PICTURE = "curves.png"
STEP = "step"
"""The curve that counts optimiser steps; with a name before it, as in ``detector_step``, that of all of that name."""

SIGNIFICANT_DIGITS = 4
PANEL_INCHES = (2.4, 1.7)
PANELS_A_ROW = 4
DOTS_PER_INCH = 72
COLOURS = 32
"""Size of the image's palette, which makes its file half as large."""


@dataclass(frozen=True)
class Measured:
    """The outcome of one build."""

    name: str
    metrics: Mapping[str, float]
    """On people and scenes that were not trained on."""
    curves: Mapping[str, list[float]]
    """Curves of the training over ``step``; several trainings have a name each, before ``_step`` and all terms."""
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
    """Meaning by metric."""


def write_measured(folder: Path, measured: Measured) -> None:
    """Write figures and curves beside a checkpoint, for DVC and as an image, and let everybody read all of it."""
    metrics = {name: _rounded(value) for name, value in measured.metrics.items()}
    (folder / FIGURES).write_text(json.dumps({measured.name: metrics}, indent=1) + "\n", encoding="utf-8")
    rows = ",\n".join(json.dumps(row) for row in curve_rows(measured.curves))
    (folder / CURVES).write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    draw_curves(measured.curves, folder / PICTURE)
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)


def write_card(folder: Path, card: Card, measured: Measured) -> None:
    """Write figures, curves and README.md."""
    write_measured(folder, measured)
    figures = json.loads((folder / FIGURES).read_text(encoding="utf-8"))[measured.name]
    rows = [f"| {name} | {value} | {card.bars.get(name, '')} |" for name, value in figures.items()]
    recipe = json.dumps(measured.params.model_dump(), indent=1)
    (folder / "README.md").write_text(
        f"# {card.title}\n\n{card.what}\n\n## Data\n\n{card.data}\n\n## Figures\n\n"
        "On people and scenes that were not trained on.\n\n| metric | value | meaning |\n|---|---|---|\n"
        + "\n".join(rows)
        + f"\n\n## Recipe\n\n```json\n{recipe}\n```\n\n![Training, by step]({PICTURE})\n\n## Limits\n\n{card.limits}\n",
        encoding="utf-8",
    )


def curve_rows(curves: Mapping[str, list[float]]) -> list[dict[str, float | None]]:
    """The curves as DVC plots them: a row for every step with all terms, null where one was not noted."""
    terms = [name for name in curves if not name.endswith(STEP)]
    noted = {name: dict(zip(_steps(curves, name), map(_rounded, curves[name]), strict=True)) for name in terms}
    steps = sorted({step for values in noted.values() for step in values})
    return [{STEP: step} | {name: noted[name].get(step) for name in terms} for step in steps]


def draw_curves(curves: Mapping[str, list[float]], file: Path) -> None:
    """A small image with a panel for every term."""
    names = [name for name in curves if not name.endswith(STEP)]
    columns = min(len(names), PANELS_A_ROW)
    lines = -(-len(names) // PANELS_A_ROW)
    figure = Figure(figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * lines), layout="constrained")
    for index, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, index + 1)
        axes.plot(_steps(curves, name), curves[name], linewidth=1, marker="." if len(curves[name]) == 1 else "")
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=6)
        axes.grid(alpha=0.3)
    drawn = BytesIO()
    figure.savefig(drawn, dpi=DOTS_PER_INCH)
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)


def _steps(curves: Mapping[str, list[float]], name: str) -> list[float]:
    """The steps at which a term was noted: the last ones, if it joined the loss later than others."""
    own = [steps for steps in curves if steps.endswith(f"_{STEP}") and name.startswith(steps.removesuffix(STEP))]
    return curves[max(own, key=len, default=STEP)][-len(curves[name]) :]


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
