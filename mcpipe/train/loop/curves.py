"""Training curves as DVC plots them, and the means at their ends."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvclive.live import Live

from mcpipe.train.loop.fit import OnStep

TAIL = 10
"""Number of steps over which the end of a curve is averaged."""
PER_NOISE_LEVEL = re.compile(r"_t\d+_\d+$")
"""Suffix of the names of curves that cover one range of noise levels."""


@contextmanager
def curves(folder: Path) -> Iterator[OnStep]:
    """A callback that writes one ``plots/metrics/NAME.tsv`` per metric into a folder, without time stamps."""
    with Live(str(folder), dvcyaml=False, save_dvc_exp=False, report=None) as live:

        def on_step(step: int, metrics: dict[str, float]) -> None:
            live.step = step
            for name, value in metrics.items():
                live.log_metric(name, value)

        yield on_step


class CurveEnds:
    """A callback that keeps the values of every curve, for the means at its ends, and calls another one."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._values: dict[str, list[float]] = {}

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        """Keep a step's metrics and pass them on."""
        for name, value in metrics.items():
            self._values.setdefault(name, []).append(value)
        self._on_step(step, metrics)

    def latest(self) -> str:
        """Metrics of the latest step as one line, without those of single noise levels; empty before the first."""
        latest = {name: values[-1] for name, values in self._values.items() if not PER_NOISE_LEVEL.search(name)}
        return ", ".join(f"{name} {value:.4g}" for name, value in latest.items())

    def means(self) -> dict[str, dict[str, float]]:
        """Means of every curve over its first and over its last `TAIL` steps."""
        return {
            name: {
                "first": sum(values[:TAIL]) / len(values[:TAIL]),
                "last": sum(values[-TAIL:]) / len(values[-TAIL:]),
            }
            for name, values in sorted(self._values.items())
        }
