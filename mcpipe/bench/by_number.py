"""Scores by the number of people in a prompt, where one benchmark has several numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ByNumber = Mapping[str, Mapping[str, float]]
"""Means by metric and the number of images under `NUM_IMAGES`, by the number of people as a text."""
NUM_IMAGES = "num_images"


def means_by_number(
    numbers: Sequence[int], scores: Sequence[Mapping[str, Any]], metrics: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Means of some metrics over the images of each number of people; empty if all prompts have one number.

    ``scores`` holds the scores of every image by metric. Metrics without a value for any image of a number are left
    out.
    """
    if len(set(numbers)) < 2:
        return {}
    table: dict[str, dict[str, float]] = {}
    for number in sorted(set(numbers)):
        own = [score for people, score in zip(numbers, scores, strict=True) if people == number]
        row: dict[str, float] = {NUM_IMAGES: len(own)}
        for metric in metrics:
            values = [score[metric] for score in own if score.get(metric) is not None]
            if values:
                row[metric] = round(float(np.mean(values)), 6)
        table[str(number)] = row
    return table


def number_lines(arms: Mapping[str, ByNumber], labels: Mapping[str, str], metrics: Sequence[str]) -> list[str]:
    """A table for a terminal with a line per arm and number of people; empty without such scores."""
    rows = [(name, number, row) for name, table in arms.items() for number, row in table.items()]
    if not rows:
        return []
    width = max(len("by number of people"), *(len(name) for name, _, _ in rows))
    head = f"{'by number of people':<{width}}  people  images"
    lines = ["", head + "".join(f"{labels[metric]:>16}" for metric in metrics)]
    for name, number, row in rows:
        cells = [f"{row[metric]:.3f}" if metric in row else "-" for metric in metrics]
        lines.append(f"{name:<{width}}  {number:>6}  {int(row[NUM_IMAGES]):>6}" + "".join(f"{c:>16}" for c in cells))
    return lines
