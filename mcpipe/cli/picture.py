"""The verb ``mcpipe picture``: the benchmark of the last run as one image."""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np

from mcpipe.cli.outputs import Output, check_outputs, write_pictures
from mcpipe.cli.table import evaluated_arms
from mcpipe.core.schemas.benchmark import GeneratedImage, PairPrompt, PoolFace
from mcpipe.core.shards import read_shards
from mcpipe.report.images import contact_sheet

TILE_PX, GAP_PX = 144, 6


def command(options: argparse.Namespace) -> str:
    """Write one row per prompt with the reference faces, then every arm's image; returns a summary.

    Raises:
        FileNotFoundError: the pipeline has not run.
        ValueError: the number of prompts is 0, the file's ending names no image format, or the file lies in an input.
        OSError: the file cannot be written.
    """
    data: Path = options.data
    read = {f"{part} of --data": data / part for part in ("pairs", "results", "images")}
    check_outputs([Output("FILE", options.file, "picture")], read)
    faces = {face.key: face.reference for face in read_shards(data / "pairs" / "faces", PoolFace)}
    folders = [folder for folder in evaluated_arms(data / "results") if (data / "images" / folder.name).is_dir()]
    pictures = [
        {drawn.key: drawn.image for drawn in read_shards(data / "images" / folder.name, GeneratedImage)}
        for folder in folders
    ]
    prompts = islice(read_shards(data / "pairs" / "bench", PairPrompt), max(options.prompts, 0))
    rows: list[list[np.ndarray]] = [
        [faces[face] for face in prompt.names] + [arm[prompt.key] for arm in pictures] for prompt in prompts
    ]
    write_pictures({options.file: contact_sheet(rows, TILE_PX, GAP_PX)}, optimize=True)
    return f"{options.file}: columns are the given faces, then {', '.join(folder.name for folder in folders)}"
