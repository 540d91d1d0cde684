"""Figures of the study of stage 3."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from mcpipe.bench.intervals import Interval
from mcpipe.bench.tables import LABELS
from studies.alignment.analysis import METRICS, AlignmentResult
from studies.alignment.average_face import HONEST, KINDS, MATCHINGS, Payment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#2f6f73", "#b4632f", "#6a5a9e", "#8aa0a2")
"""Colours of arms, in turn."""
MATCHING_COLOURS = ("#2f6f73", "#8aa0a2", "#6a5a9e")
BAR = 0.26


def alignment_figure(result: AlignmentResult) -> Figure:
    """What each arm changed on the benchmark; ratios and rewards in training, the range of the seeds shaded."""
    sheet = Figure(figsize=(11, 6.4), layout="constrained")
    axes = sheet.subplots(2, 2)
    changes, ratios, widest, gains = axes.flat
    for number, arm in enumerate(result.summary.plan.arms):
        colour, curves = COLOURS[number % len(COLOURS)], result.curves[arm.name]
        draw_changes(changes, result, arm.name, number, colour)
        for panel, values in (
            (ratios, curves.ratio[:, curves.later] - 1),
            (widest, curves.deviation[:, curves.later]),
            (gains, curves.gain),
        ):
            draw_band(panel, values, arm.title, colour)
    changes.set_yticks(range(len(METRICS)), [LABELS[metric] for metric in METRICS])
    changes.invert_yaxis()
    changes.axvline(0, color="#24282d", linewidth=0.8)
    changes.set_title("change against stage 2, 95 % intervals", fontsize=10)
    ratios.set_title("mean ratio - 1 by later update, mean and range over seeds", fontsize=10)
    widest.set_title("largest distance of a ratio from 1 by later update", fontsize=10)
    gains.set_title("reward above that of stage 2 by iteration", fontsize=10)
    for panel in (ratios, widest, gains):
        panel.ticklabel_format(axis="y", scilimits=(-3, 4))
    for panel in axes.flat:
        panel.locator_params(axis="x", nbins=5, integer=panel is not changes)
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize=8)
    return sheet


def draw_changes(axes: "Axes", result: AlignmentResult, arm: str, number: int, colour: str) -> None:
    """An arm's changes against the start, one line per metric; arms lie beside each other."""
    plan = result.summary.plan
    own = {c.metric: c.change for c in result.summary.changes if (c.before, c.after) == (plan.start, arm)}
    places = np.array([METRICS.index(metric) for metric in own]) + 0.2 * (number - (len(plan.arms) - 1) / 2)
    values = np.array([change.value for change in own.values()])
    reach = np.abs([values - [c.low for c in own.values()], [c.high for c in own.values()] - values])
    axes.errorbar(values, places, xerr=reach, fmt="o", color=colour, capsize=3, label=plan.titles[arm])


def draw_band(axes: "Axes", values: Float[np.ndarray, "seeds steps"], label: str, colour: str) -> None:
    """A curve's mean over seeds within their range."""
    steps = np.arange(values.shape[1])
    axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
    axes.plot(steps, values.mean(0), marker=".", color=colour, linewidth=1.5, label=label)


def average_face_figure(payments: Mapping[str, Payment], leads: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """An example of each kind of image, and its mean reward by each matching."""
    sheet = Figure(figsize=(11, 4.6), layout="constrained")
    examples, bars = sheet.subfigures(2, 1, squeeze=False, height_ratios=(1, 2.2)).flat
    for panel, (kind, paid) in zip(examples.subplots(1, len(payments)), payments.items(), strict=True):
        panel.imshow(paid.example)
        panel.set_title(KINDS[kind].replace(", ", ",\n"), fontsize=7)
        panel.set_axis_off()
    axes = bars.subplots()
    places = np.arange(len(payments))
    for shift, (matching, colour) in enumerate(zip(MATCHINGS, MATCHING_COLOURS, strict=True)):
        values = [paid.rewards[matching].mean() for paid in payments.values()]
        axes.bar(places + BAR * (shift - 1), values, BAR, color=colour, label=matching)
        honest = float(payments[HONEST].rewards[matching].mean())
        for place, kind in enumerate(payments):
            if kind != HONEST and leads[kind][matching].low > 0:
                axes.annotate("*", (place + BAR * (shift - 1), values[place]), ha="center", fontsize=11)
        axes.axhline(honest, color=colour, linewidth=0.8, linestyle=":")
    axes.set_xticks(places, [KINDS[kind].replace(", ", ",\n") for kind in payments], fontsize=7)
    axes.set_title("identity reward; * more than the honest drawing of the same pair, 95 % interval", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return sheet
