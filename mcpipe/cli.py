"""The command ``mcpipe``: what people want to see outside of ``dvc repro``."""

import argparse
import json
import sys
from importlib import import_module
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from mcpipe.bench.pictures import contact_sheet
from mcpipe.bench.tables import POLICY, from_metrics, text_table
from mcpipe.shards import read_shards

ARM_ORDER = {"train_single": 0, "train_multi": 1, "train_rl": 2}
"""The arms of the pipeline in the order of training; others come after, by name."""
TILE_PX, GAP_PX = 144, 6


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        said = options.run(options)
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    Console(soft_wrap=True, highlight=False).print(said, markup=False)
    return 0


def benchmark_table(results: Path) -> str:
    """The scores of every arm below a folder of results, in the order of training.

    Raises:
        FileNotFoundError: no arm has been evaluated.
    """
    arms = [from_metrics(folder.name, json.loads((folder / "metrics.json").read_text())) for folder in _arms(results)]
    return f"{text_table(arms)}\n{POLICY}"


def benchmark_picture(data: Path, file: Path, num_prompts: int) -> str:
    """Write one row per prompt: the given faces, then every arm's picture; returns what was written.

    Raises:
        FileNotFoundError: the pipeline has not run.
    """
    faces = {record.key: record.arrays["reference"] for record in read_shards(data / "pairs" / "faces")}
    folders = _arms(data / "results")
    pictures = [{r.key: r.arrays["image"] for r in read_shards(data / "images" / folder.name)} for folder in folders]
    prompts = islice(read_shards(data / "pairs" / "bench"), num_prompts)
    rows: list[list[np.ndarray]] = [
        [faces[face] for face in prompt.texts("faces")] + [arm[prompt.key] for arm in pictures] for prompt in prompts
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(rows, TILE_PX, GAP_PX).save(file, optimize=True)
    return f"{file}: columns are the given faces, then {', '.join(folder.name for folder in folders)}"


def curation_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``curate`` takes: a folder of clips, a folder for the outcome, changes of settings."""
    parser.add_argument("clips", type=Path, metavar="DIR", help="folder of clips, searched recursively")
    parser.add_argument("--out", type=Path, required=True, help="folder for samples, funnel.json and progress")
    parser.add_argument(
        "-S", dest="changes", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a setting"
    )


def world_preview(file: Path, seed: int) -> str:
    """Write a contact sheet of the puppet world; returns what was written.

    Raises:
        ValueError: the file's ending names no picture format, or the seed is negative.
        OSError: the file cannot be written.
    """
    if file.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"{file} should end as a picture does, such as .png")
    if seed < 0:
        raise ValueError(f"a seed should be 0 or more, not {seed}")
    file.parent.mkdir(parents=True, exist_ok=True)
    # Named here and imported by no other module: no part of the pipeline knows the world.
    sheet = import_module("mcpipe.world.preview").preview_sheet(seed)
    sheet.save(file, optimize=True)
    return f"{file}: the puppet world of seed {seed}, {sheet.width} x {sheet.height} pixels"


def _arms(results: Path) -> list[Path]:
    """Folders of evaluated arms, in the order of training."""
    folders = [file.parent for file in sorted(results.glob("*/metrics.json"))]
    if not folders:
        raise FileNotFoundError(f"no metrics.json below {results}; run `dvc repro` first")
    return sorted(folders, key=lambda folder: (ARM_ORDER.get(folder.name, len(ARM_ORDER)), folder.name))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mcpipe", description=__doc__)
    verbs = parser.add_subparsers(required=True)
    table = verbs.add_parser("table", help="print the benchmark table of the last run")
    table.add_argument("results", type=Path, nargs="?", default=Path("data/results"))
    table.set_defaults(run=lambda options: benchmark_table(options.results))
    picture = verbs.add_parser("picture", help="write the benchmark's faces and pictures of the last run as one PNG")
    picture.add_argument("file", type=Path)
    picture.add_argument("--data", type=Path, default=Path("data"))
    picture.add_argument("--prompts", type=int, default=4)
    picture.set_defaults(run=lambda options: benchmark_picture(options.data, options.file, options.prompts))
    curate = verbs.add_parser("curate", help="turn a folder of clips into training samples and say what was refused")
    curation_arguments(curate)
    # The shell is named here and imported nowhere in mcpipe: what opens paths lies outside.
    curate.set_defaults(run=lambda options: import_module("stages.curation").command(options))
    world = verbs.add_parser("world", help="write a contact sheet of the puppet world: scenes, portraits, clothes")
    world.add_argument("--preview", type=Path, required=True, metavar="FILE", help="picture to write, such as a PNG")
    world.add_argument("--seed", type=int, default=1, help="another seed shows other people (default: 1)")
    world.set_defaults(run=lambda options: world_preview(options.preview, options.seed))
    return parser


if __name__ == "__main__":
    sys.exit(main())
