"""Plots of the report, drawn once as SVG: inside the page in its colours, and as files of their own."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from mcpipe.bench.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, QUIET, ACCENT, WARM = "#010203", "#040506", "#070809", "#0a0b0c"
"""Stand-ins inside plots, replaced by the page's own colours, so that plots follow its light and dark themes."""
THEME = {INK: "var(--ink)", QUIET: "var(--line)", ACCENT: "var(--accent)", WARM: "var(--warm)"}
ON_WHITE = {INK: "#24282d", QUIET: "#e2ded6", ACCENT: "#2f6f73", WARM: "#b4632f"}
"""The same in a file of its own."""
STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": QUIET,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 4),
}
SMOOTHING_REACH = 8
"""Neighbours on each side over which the bold line of a curve averages, at most an eighth of the curve."""
EDGES = np.linspace(-0.5, 1, 31)
"""Edges of the bars of a histogram of cosines."""
ROW_INCHES = 0.32
"""Height of a line of a plot that has one per arm, layer or stage."""


@dataclass(frozen=True)
class Plot:
    """A drawing with a description in words."""

    svg: str
    description: str

    @property
    def inline(self) -> Markup:
        """As an element of a page: no prologue, no repeated ids, the page's colours and font."""
        svg = self.svg[self.svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
        svg = re.sub(r' id="(?![pm][0-9a-f]{10}")[^"]*"', "", svg)  # clip paths and markers are referred to
        svg = re.sub(r'font-family: [^;"]*', "font-family: inherit", svg)
        svg = re.sub(
            r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg xmlns="http://www.w3.org/2000/svg" \1>', svg, count=1
        )
        label = Markup('<svg role="img" aria-label="{}" ').format(self.description)
        return Markup(_coloured(svg, THEME).replace("<svg ", label, 1))  # noqa: S704

    @property
    def document(self) -> str:
        """As a file of its own, on white."""
        return _coloured(self.svg, ON_WHITE)


def curve_plot(name: str, steps: Sequence[float], values: Sequence[float]) -> Plot:
    """One training curve: every step faintly, its running mean boldly."""
    series = np.asarray(values, np.float64)
    with _drawing(name, 3.4, 1.9) as (axes, plot):
        axes.plot(steps, series, color=ACCENT, alpha=0.3, linewidth=1)
        axes.plot(steps, smoothed(series), color=ACCENT, linewidth=1.8)
        axes.locator_params(nbins=4)
        axes.grid(visible=False, axis="x")
    return plot(f"{name}, from {values[0]:.4g} to {values[-1]:.4g} over {len(values)} entries")


def interval_plot(labels: Mapping[str, str], arms: Mapping[str, Mapping[str, Interval]]) -> Plot:
    """Means with their intervals: a line per arm, side by side at most two metrics, which ``labels`` names.

    ``arms`` holds the interval of each metric by the name of the arm.
    """
    names = list(arms)
    with _drawing("/".join(labels), 6.4, 0.9 + 1.6 * ROW_INCHES * len(names)) as (axes, plot):
        for colour, marker, shift, (metric, label) in zip(
            (ACCENT, WARM), "os", (-0.14, 0.14), labels.items(), strict=False
        ):
            points = [(place + shift, arms[name][metric]) for place, name in enumerate(names) if metric in arms[name]]
            for height, interval in points:
                axes.plot([interval.low, interval.high], [height, height], color=colour, linewidth=2, alpha=0.55)
            axes.plot(
                [interval.value for _, interval in points],
                [height for height, _ in points],
                marker,
                color=colour,
                markersize=6,
                label=label,
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=9)
    figures = [f"{name} {arms[name][metric].value:.3f}" for name in names for metric in labels if metric in arms[name]]
    return plot(f"{' and '.join(labels.values())} with 95 % intervals: {', '.join(figures)}")


def similarity_shares(cosines: Sequence[float]) -> list[tuple[float, float]]:
    """The histogram of some cosines: the middle of every bar and the share of the values in it."""
    counts, edges = np.histogram(np.clip(cosines, EDGES[0], EDGES[-1]), EDGES)
    middles = (edges[:-1] + edges[1:]) / 2
    return [(round(float(m), 4), float(n) / max(len(cosines), 1)) for m, n in zip(middles, counts, strict=True)]


def similarity_plot(name: str, same: Sequence[float], cross: Sequence[float]) -> Plot:
    """Two histograms of cosines over each other, each as a share of its own values."""
    with _drawing(f"similarity {name}", 3.4, 2.1) as (axes, plot):
        for values, colour, label in ((cross, WARM, "another wanted person"), (same, ACCENT, "the right person")):
            shares = [share for _, share in similarity_shares(values)]
            axes.stairs(shares, EDGES, fill=True, color=colour, alpha=0.35, label=f"{label}, {len(values)}")
            axes.stairs(shares, EDGES, color=colour, linewidth=1.4)
        axes.set_xlim(EDGES[0], EDGES[-1])
        axes.locator_params(nbins=4)
        axes.grid(visible=False, axis="x")
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize=7.5, handlelength=1)
    mean = [f"{np.mean(values):.3f}" if len(values) else "none" for values in (same, cross)]
    return plot(f"{name}: cosines with the right person, mean {mean[0]}, and with another wanted one, mean {mean[1]}")


def usage_plot(name: str, layers: Mapping[str, Sequence[float]]) -> Plot:
    """Which share of the tokens each expert got: a bar per layer, or layer and kind of token; a piece per expert."""
    places = np.arange(len(layers))
    num_experts = max(map(len, layers.values()))
    shares = np.array([[*row, *[0.0] * (num_experts - len(row))] for row in layers.values()])
    with _drawing(f"usage {name}", 6.4, 0.8 + ROW_INCHES * len(layers)) as (axes, plot):
        starts = np.cumsum(shares, axis=1) - shares
        for expert in range(num_experts):
            alpha = 0.9 - 0.65 * expert / max(num_experts - 1, 1)
            axes.barh(places, shares[:, expert], 0.7, starts[:, expert], color=ACCENT, alpha=alpha, linewidth=0)
        axes.set_yticks(places, list(layers))
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.grid(visible=False, axis="y")
    return plot(f"{name}: share of tokens per expert in {len(layers)} lines, the busiest {shares.max():.2f}")


def funnel_plot(steps: Sequence[tuple[str, int, int]]) -> Plot:
    """Numbers of seen and kept items by stage; ``steps`` are name, seen and kept."""
    places = np.arange(len(steps))
    with _drawing("funnel", 6.4, 0.8 + ROW_INCHES * len(steps)) as (axes, plot):
        axes.barh(places, [kept for _, _, kept in steps], 0.7, color=ACCENT)
        lost = [seen - kept for _, seen, kept in steps]
        axes.barh(places, lost, 0.7, [kept for _, _, kept in steps], color=WARM, alpha=0.35)
        axes.set_yticks(places, [name for name, _, _ in steps])
        axes.set_ylim(len(steps) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
    return plot("; ".join(f"{name}: {kept} of {seen} kept" for name, seen, kept in steps))


def smoothed(values: Float[np.ndarray, " S"]) -> Float[np.ndarray, " S"]:
    """The mean of each value and its neighbours, of fewer neighbours near the ends."""
    reach = min(SMOOTHING_REACH, len(values) // 8)
    places = np.arange(len(values))
    sums = np.cumsum(np.concatenate([[0.0], values]))
    near = np.minimum(reach, np.minimum(places, len(values) - 1 - places))
    return (sums[places + near + 1] - sums[places - near]) / (2 * near + 1)


@contextmanager
def _drawing(salt: str, width: float, height: float) -> Iterator[tuple["Axes", "_Finish"]]:
    """Axes of a figure of some inches, and what makes a plot of them afterwards; ``salt`` keeps its ids its own."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {**STYLE, "svg.hashsalt": salt}
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        finish = _Finish()
        yield axes, finish
        axes.tick_params(length=0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        finish.svg = buffer.getvalue()


class _Finish:
    """Makes a plot of a figure that is finished."""

    svg = ""

    def __call__(self, description: str) -> Plot:
        return Plot(self.svg, description)


def _coloured(svg: str, colours: Mapping[str, str]) -> str:
    for stand_in, colour in colours.items():
        svg = svg.replace(stand_in, colour)
    return svg
