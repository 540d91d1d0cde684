"""Both figures of the comparison."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from mcpipe.bench.intervals import Interval
from mcpipe.bench.tables import LABELS
from studies.alignment.arms import GRPO, IPPO, START
from studies.alignment.average_face import HONEST, KINDS, MATCHINGS, Paid
from studies.alignment.outcome import METRICS, Change, Course

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {IPPO: "#2f6f73", GRPO: "#b4632f"}
SHORT = {IPPO: "per trajectory (IPPO)", GRPO: "per step (GRPO)"}
MATCHING_COLOURS = ("#2f6f73", "#8aa0a2", "#6a5a9e")
BAR = 0.26


def alignment_figure(changes: Sequence[Change], courses: Mapping[str, Course]) -> Figure:
    """What each arm changed on the benchmark; ratios and rewards in training, the range of the seeds shaded."""
    sheet = Figure(figsize=(11, 6.4), layout="constrained")
    axes = sheet.subplots(2, 2)
    changed, ratios, widest, gains = axes.flat
    for shift, arm in enumerate(COLOURS):
        found = [one.change for one in changes if (one.before, one.after) == (START, arm)]
        places = np.arange(len(METRICS)) + 0.2 * (shift - 0.5)
        values = np.array([one.value for one in found])
        reach = np.abs([values - [one.low for one in found], [one.high for one in found] - values])
        changed.errorbar(values, places, xerr=reach, fmt="o", color=COLOURS[arm], capsize=3, label=SHORT[arm])
    changed.set_yticks(range(len(METRICS)), [LABELS[metric] for metric in METRICS])
    changed.invert_yaxis()
    changed.axvline(0, color="#24282d", linewidth=0.8)
    changed.set_title("change against stage 2, 95 % intervals", fontsize=10)
    for arm in (IPPO, GRPO):
        course = courses[arm]
        banded(ratios, course.ratio[:, course.later] - 1, arm)
        banded(widest, course.deviation[:, course.later], arm)
        banded(gains, course.gain, arm)
    ratios.set_title("mean ratio - 1 by later update, mean and range over seeds", fontsize=10)
    widest.set_title("largest distance of a ratio from 1 by later update", fontsize=10)
    gains.set_title("reward above that of stage 2 by iteration", fontsize=10)
    for panel in (ratios, widest, gains):
        panel.ticklabel_format(axis="y", scilimits=(-3, 4))
    for panel in axes.flat:
        panel.locator_params(axis="x", nbins=5, integer=panel is not changed)
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize=8)
    return sheet


def banded(axes: "Axes", values: Float[np.ndarray, "seeds steps"], arm: str) -> None:
    """A curve's mean over seeds within their range."""
    steps = np.arange(values.shape[1])
    axes.fill_between(steps, values.min(0), values.max(0), color=COLOURS[arm], alpha=0.2, linewidth=0)
    axes.plot(steps, values.mean(0), marker=".", color=COLOURS[arm], linewidth=1.5, label=SHORT[arm])


def average_face_figure(paid: Mapping[str, Paid], leads: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """One example of each kind of picture, and its mean reward by each matching."""
    sheet = Figure(figsize=(11, 4.6), layout="constrained")
    examples, bars = sheet.subfigures(2, 1, squeeze=False, height_ratios=(1, 2.2)).flat
    for panel, (kind, one) in zip(examples.subplots(1, len(paid)), paid.items(), strict=True):
        panel.imshow(one.example)
        panel.set_title(KINDS[kind].replace(", ", ",\n"), fontsize=7)
        panel.set_axis_off()
    axes = bars.subplots()
    places = np.arange(len(paid))
    for shift, (matching, colour) in enumerate(zip(MATCHINGS, MATCHING_COLOURS, strict=True)):
        values = [one.rewards[matching].mean() for one in paid.values()]
        axes.bar(places + BAR * (shift - 1), values, BAR, color=colour, label=matching)
        honest = float(paid[HONEST].rewards[matching].mean())
        for place, kind in enumerate(paid):
            if kind != HONEST and leads[kind][matching].low > 0:
                axes.annotate("*", (place + BAR * (shift - 1), values[place]), ha="center", fontsize=11)
        axes.axhline(honest, color=colour, linewidth=0.8, linestyle=":")
    axes.set_xticks(places, [KINDS[kind].replace(", ", ",\n") for kind in paid], fontsize=7)
    axes.set_title("identity reward; * more than the honest drawing of the same pair, 95 % interval", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return sheet
