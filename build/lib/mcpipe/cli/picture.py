"""The benchmark of the last run as one picture: what ``mcpipe picture`` draws."""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np

from mcpipe.cli.outputs import check_picture_file
from mcpipe.cli.table import evaluated_arms
from mcpipe.core.shards import read_shards
from mcpipe.report.images import contact_sheet

TILE_PX, GAP_PX = 144, 6


def command(options: argparse.Namespace) -> str:
    """Write one row per prompt: the given faces, then every arm's picture; returns what was written.

    Raises:
        FileNotFoundError: the pipeline has not run.
        ValueError: no prompt is wanted, or the file's ending names no picture format.
        OSError: the file cannot be written.
    """
    check_picture_file(options.file)
    data: Path = options.data
    faces = {record.key: record.arrays["reference"] for record in read_shards(data / "pairs" / "faces")}
    folders = [folder for folder in evaluated_arms(data / "results") if (data / "images" / folder.name).is_dir()]
    pictures = [{r.key: r.arrays["image"] for r in read_shards(data / "images" / folder.name)} for folder in folders]
    prompts = islice(read_shards(data / "pairs" / "bench"), max(options.prompts, 0))
    rows: list[list[np.ndarray]] = [
        [faces[face] for face in prompt.texts("faces")] + [arm[prompt.key] for arm in pictures] for prompt in prompts
    ]
    options.file.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(rows, TILE_PX, GAP_PX).save(options.file, optimize=True)
    return f"{options.file}: columns are the given faces, then {', '.join(folder.name for folder in folders)}"
