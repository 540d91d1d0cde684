"""What a run left behind, for people: the benchmark as a table or a picture, and the puppet world on one sheet."""

import argparse
from importlib import import_module
from itertools import islice
from pathlib import Path

import numpy as np

from mcpipe.bench.results import read_scores
from mcpipe.bench.tables import comparable, text_table
from mcpipe.cli.outputs import check_picture_file
from mcpipe.core.shards import read_shards
from mcpipe.report.images import contact_sheet

ARM_ORDER = {"train_single": 0, "train_multi": 1, "train_rl": 2}
"""The arms of the pipeline in the order of training; others come after, by name."""
TILE_PX, GAP_PX = 144, 6


def benchmark_table(options: argparse.Namespace) -> str:
    """The scores of every arm below a folder of results, in the order of training; what is not comparable is named.

    Raises:
        FileNotFoundError: no arm has been evaluated.
        ValueError: scores are damaged.
    """
    arms, left_out = comparable([read_scores(folder) for folder in _arms(options.results)])
    return "\n".join([*filter(None, [text_table(arms)]), *left_out])


def benchmark_picture(options: argparse.Namespace) -> str:
    """Write one row per prompt: the given faces, then every arm's picture; returns what was written.

    Raises:
        FileNotFoundError: the pipeline has not run.
        ValueError: no prompt is wanted, or the file's ending names no picture format.
        OSError: the file cannot be written.
    """
    check_picture_file(options.file)
    data: Path = options.data
    faces = {record.key: record.arrays["reference"] for record in read_shards(data / "pairs" / "faces")}
    folders = [folder for folder in _arms(data / "results") if (data / "images" / folder.name).is_dir()]
    pictures = [{r.key: r.arrays["image"] for r in read_shards(data / "images" / folder.name)} for folder in folders]
    prompts = islice(read_shards(data / "pairs" / "bench"), max(options.prompts, 0))
    rows: list[list[np.ndarray]] = [
        [faces[face] for face in prompt.texts("faces")] + [arm[prompt.key] for arm in pictures] for prompt in prompts
    ]
    options.file.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(rows, TILE_PX, GAP_PX).save(options.file, optimize=True)
    return f"{options.file}: columns are the given faces, then {', '.join(folder.name for folder in folders)}"


def world_preview(options: argparse.Namespace) -> str:
    """Write a contact sheet of the puppet world; returns what was written.

    Raises:
        ValueError: the file's ending names no picture format, or the seed is negative.
        OSError: the file cannot be written.
    """
    file: Path = options.preview
    check_picture_file(file)
    if options.seed < 0:
        raise ValueError(f"a seed should be 0 or more, not {options.seed}")
    file.parent.mkdir(parents=True, exist_ok=True)
    # Named here and imported by no other module: no part of the pipeline knows the world.
    sheet = import_module("mcpipe.world.preview").preview_sheet(options.seed)
    sheet.save(file, optimize=True)
    return f"{file}: the puppet world of seed {options.seed}, {sheet.width} x {sheet.height} pixels"


def _arms(results: Path) -> list[Path]:
    """Folders of evaluated arms, in the order of training."""
    folders = [file.parent for file in sorted(results.glob("*/metrics.json"))]
    if not folders:
        raise FileNotFoundError(f"no metrics.json below {results}; run `dvc repro` first")
    return sorted(folders, key=lambda folder: (ARM_ORDER.get(folder.name, len(ARM_ORDER)), folder.name))
