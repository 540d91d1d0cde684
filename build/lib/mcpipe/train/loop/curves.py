"""Training curves as DVC plots them, and the numbers at their ends."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvclive.live import Live

from mcpipe.train.loop.fit import OnStep

TAIL = 10
"""A curve's end is the mean of so many last steps."""
PER_NOISE_LEVEL = re.compile(r"_t\d+_\d+$")
"""How the names of curves end that tell of one range of noise levels."""


@contextmanager
def curves(folder: Path) -> Iterator[OnStep]:
    """A callback that writes one ``plots/metrics/NAME.tsv`` per number into a folder; no clock in it."""
    with Live(str(folder), dvcyaml=False, save_dvc_exp=False, report=None) as live:

        def on_step(step: int, values: dict[str, float]) -> None:
            live.step = step
            for name, value in values.items():
                live.log_metric(name, value)

        yield on_step


class Ends:
    """Remembers the first and the last values of every curve on their way to another callback."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._values: dict[str, list[float]] = {}

    def __call__(self, step: int, values: dict[str, float]) -> None:
        """Pass on a step's numbers."""
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)
        self._on_step(step, values)

    def latest(self) -> str:
        """The latest step's numbers as one line, those of single noise levels left out; empty before the first."""
        told = {name: values[-1] for name, values in self._values.items() if not PER_NOISE_LEVEL.search(name)}
        return ", ".join(f"{name} {value:.4g}" for name, value in told.items())

    def means(self) -> dict[str, dict[str, float]]:
        """Per curve the mean of its first and of its last steps."""
        return {
            name: {"first": sum(some[:TAIL]) / len(some[:TAIL]), "last": sum(some[-TAIL:]) / len(some[-TAIL:])}
            for name, some in sorted(self._values.items())
        }
