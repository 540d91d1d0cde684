"""The verb ``mcpipe picture``: the benchmark of the last run as one image."""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np

from mcpipe.cli.outputs import Output, check_outputs, write_pictures
from mcpipe.cli.table import evaluated_arms
from mcpipe.core.schemas.benchmark import GeneratedImage, PairPrompt, PoolFace, PoolThing
from mcpipe.core.shards import read_shards
from mcpipe.curate.objects import POOLS
from mcpipe.report.images import contact_sheet

TILE_PX, GAP_PX = 144, 6
NOTHING = np.full((1, 1, 3), 255, np.uint8)
"""In the place of a reference that a prompt does not have."""


def command(options: argparse.Namespace) -> str:
    """Write one row per prompt with its references, then every arm's image; returns a summary.

    Raises:
        FileNotFoundError: the pipeline has not run.
        ValueError: the number of prompts is 0, the file's ending names no image format, or the file lies in an input.
        OSError: the file cannot be written.
    """
    data: Path = options.data
    objects = (data / "prompts").is_dir()
    asked = data / ("prompts" if objects else "pairs")
    check_outputs([Output("FILE", options.file, "picture")], {f"{part.name} of --data": part for part in (
        asked, data / "results", data / "images")})  # fmt: skip
    pool = read_shards(asked / POOLS["bench"], PoolThing) if objects else read_shards(asked / "faces", PoolFace)
    references = {each.key: each.reference for each in pool}
    folders = [folder for folder in evaluated_arms(data / "results") if (data / "images" / folder.name).is_dir()]
    pictures = [
        {drawn.key: drawn.image for drawn in read_shards(data / "images" / folder.name, GeneratedImage)}
        for folder in folders
    ]
    prompts = list(islice(read_shards(asked / "bench", PairPrompt), max(options.prompts, 0)))
    most = max((len(prompt.names) for prompt in prompts), default=0)
    rows: list[list[np.ndarray]] = [
        [references[name] for name in prompt.names] + [NOTHING] * (most - len(prompt.names))
        + [arm[prompt.key] for arm in pictures]
        for prompt in prompts
    ]  # fmt: skip
    write_pictures({options.file: contact_sheet(rows, TILE_PX, GAP_PX)}, optimize=True)
    return f"{options.file}: columns are the references, then {', '.join(folder.name for folder in folders)}"
