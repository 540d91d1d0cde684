"""Export of the benchmark for other systems: prompts as a table, faces as image files."""

import csv
from pathlib import Path

from PIL import Image

from mcpipe.core.schemas.benchmark import PairPrompt, PoolFace
from mcpipe.core.shards import read_shards, whole_folder

TABLE = "prompts.csv"


def write_export(pairs: Path, out: Path) -> str:
    """Write ``prompts.csv`` and its faces to a new folder; returns a summary.

    A line of the table holds the prompt's key, which names the image to generate, the prompt, and the files of its
    people, separated by spaces.

    Raises:
        FileNotFoundError: the stage ``pairs`` has not run.
        ValueError: the folder exists.
    """
    if out.exists():
        raise ValueError(f"{out} exists; name a new folder")
    prompts = list(read_shards(pairs / "bench", PairPrompt))
    with whole_folder(out) as folder:
        (folder / "faces").mkdir()
        for face in read_shards(pairs / "faces", PoolFace):
            Image.fromarray(face.reference).save(folder / "faces" / f"{face.key}.png")
        with (folder / TABLE).open("w", encoding="utf-8", newline="") as lines:
            table = csv.writer(lines, lineterminator="\n")
            table.writerow(("key", "prompt", "faces"))
            for prompt in prompts:
                files = " ".join(f"faces/{face}.png" for face in prompt.names)
                table.writerow((prompt.key, prompt.prompt, files))
    return f"{out / TABLE}: {len(prompts)} prompts; answer each with a picture called KEY.png"
