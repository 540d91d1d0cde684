"""The verb ``mcpipe table``: the benchmark table of the last run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mcpipe.bench import object_columns
from mcpipe.bench.both_tracks import BothTracks, both_lines, both_tracks
from mcpipe.bench.results import read_scores
from mcpipe.bench.tables import ArmScores, comparable, text_table
from mcpipe.report.published import COMPARISON

ARM_ORDER = {"train_single": 0, "train_multi": 1, "train_rl": 2}
"""The arms of the pipeline in the order of training; other systems follow, sorted by name."""


def command(options: argparse.Namespace) -> str:
    """The scores of every arm below a folder of results in the order of training, and the reasons of omitted arms.

    Results of objects are followed by the nine columns of both tracks, for the arms that have results below the folder
    ``options.people`` as well, and by the published rows.

    Raises:
        FileNotFoundError: no arm has been evaluated.
        ValueError: scores are damaged.
    """
    arms, left_out = comparable([read_scores(folder) for folder in evaluated_arms(options.results)])
    lines = [*filter(None, [text_table(arms)]), *left_out]
    if any(arm.suite == object_columns.SUITE for arm in arms):
        lines += nine_columns(arms, options.people)
    return "\n".join(lines)


def nine_columns(objects: Sequence[ArmScores], people: Path | None) -> list[str]:
    """Both tracks of every arm that has them, and the paper's rows below, never mixed with ours."""
    lines: list[str] = []
    if people is not None and any(people.glob("*/metrics.json")):
        arms, left_out = comparable([read_scores(folder) for folder in evaluated_arms(people)])
        lines += left_out
        if rows := both_tracks(arms, objects):
            lines += both_lines("both tracks; Overall is the plain mean of nine columns:", rows)
    published = [BothTracks(row.name, row.human, row.objects) for row in COMPARISON.rows]
    return lines + both_lines(f"published, not comparable ({COMPARISON.source}):", published)


def evaluated_arms(results: Path) -> list[Path]:
    """Folders of evaluated arms, in the order of training."""
    folders = [file.parent for file in sorted(results.glob("*/metrics.json"))]
    if not folders:
        raise FileNotFoundError(f"no metrics.json below {results}; run `dvc repro` first")
    return sorted(folders, key=lambda folder: (ARM_ORDER.get(folder.name, len(ARM_ORDER)), folder.name))
