"""Stage 9: who appears together, and a prompt for every pair.

Departures from the paper:

1. Prompts are sampled anew, a few times, until one mentions everyone once.
2. Faces can be split between the benchmark and training, too (see `mcpipe.bench.pairs`).
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydantic import Field

from mcpipe.bench.pairs import Pair, SplitParams, pair_key, split_pairs
from mcpipe.curate.captions import PROMPT_INSTRUCTION, SentenceParams, caption_fault
from mcpipe.curate.samples import face_crop
from mcpipe.engine import kept
from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.faces import InsightFaces
from mcpipe.models.protocols import Captioner, FaceAnalyser
from mcpipe.params import Params
from mcpipe.records import JSON, Record, Rejection, record_key
from mcpipe.report import Report
from mcpipe.shards import whole_folder, write_shards

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
ATTRIBUTES = "faces.csv"
"""Optional table beside the pictures: a column ``file``, all others describe the person."""


class PairsParams(Params):
    """Faces, pairs and prompts."""

    min_face_score: float = Field(ge=0, le=1)
    """Certainty of a face detection."""
    detection_size: int = Field(ge=32)
    """Side in pixels at which the detector sees a picture."""
    reference_size: int = Field(ge=16)
    """Side of a face reference in pixels, the one the generator was trained with (paper: 320)."""
    captioner_size: int = Field(ge=28)
    """Side in pixels at which the captioner sees a face."""
    split: SplitParams
    """Which pairs are the benchmark."""
    prompt: SentenceParams
    """What a prompt must be like; every attempt is sampled, from a seed of its own pair."""
    records_per_shard: int = Field(ge=1)


def run(faces: Path, analyser: Path, captioner: Path, pairs: Path, params: PairsParams) -> None:
    """Write the usable faces, the benchmark's prompts and the prompts for reinforcement learning.

    Raises:
        FileNotFoundError: the folder of faces is missing or holds no picture.
        ValueError: there are too few usable faces, or no pair has a usable prompt.
    """
    finder, writer = InsightFaces(analyser, params.min_face_score, params.detection_size), Qwen2_5VL(captioner)
    with whole_folder(pairs) as folder:
        pool = write_faces(faces, finder, folder / "faces", params)
        split = split_pairs(list(pool), params.split)
        report = Report("pairs", ("transformers", "qwen-vl-utils"))
        sizes = {
            name: write_prompts(chosen, pool, writer, folder / name, report, params)
            for name, chosen in (("bench", split.bench), ("rl", split.rl))
        }
        for name, number in sizes.items():
            if not number:
                raise ValueError(f"no pair of the {name} set has a usable prompt; the last reasons are in the log")
        report.facts = {"split": params.split.split, "faces": len(pool), **sizes}
        report.write(folder)


def write_faces(faces: Path, finder: FaceAnalyser, folder: Path, params: PairsParams) -> dict[str, np.ndarray]:
    """Write every picture with exactly one face; returns by key what the captioner sees of them.

    Raises:
        FileNotFoundError: the folder of faces is missing or holds no picture.
    """
    files = face_files(faces)
    attributes = face_attributes(faces)
    report = Report("faces", ("insightface", "onnxruntime"))

    def decide(file: Path) -> Record | Rejection:
        return face_of(file, attributes.get(file.name, {}), finder, params)

    found = list(kept(files.items(), len(files), decide, report))
    write_shards(found, folder, params.records_per_shard)
    report.write(folder)
    return {record.key: record.arrays["closeup"] for record in found}


def face_files(faces: Path) -> dict[str, Path]:
    """The pictures of a folder by face key, in the order of keys.

    Raises:
        FileNotFoundError: the folder is missing or holds none.
        ValueError: two pictures have one name.
    """
    if not faces.is_dir():
        raise FileNotFoundError(f"no folder of faces {faces}")
    files: dict[str, Path] = {}
    for file in sorted(faces.iterdir()):
        if file.suffix.lower() not in SUFFIXES:
            continue
        # A plus sign joins the two faces of a pair.
        key = record_key(file.stem).replace("+", "%2B")
        if key in files:
            raise ValueError(f"{files[key]} and {file} have one name; rename one of them")
        files[key] = file
    if not files:
        raise FileNotFoundError(f"no picture in {faces}; looked for {' '.join(SUFFIXES)}")
    return dict(sorted(files.items()))


def face_attributes(faces: Path) -> dict[str, dict[str, JSON]]:
    """What ``faces.csv`` says of every file; nothing if there is no such table."""
    table = faces / ATTRIBUTES
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if rows and "file" not in rows[0]:
        raise ValueError(f"{table} lacks a column called file")
    return {row["file"]: {name: value for name, value in row.items() if name != "file"} for row in rows}


def face_of(file: Path, attributes: dict[str, JSON], finder: FaceAnalyser, params: PairsParams) -> Record | Rejection:
    """The one face of a picture, cut like the references of samples, or why it is refused."""
    try:
        with Image.open(file) as image:
            picture = np.asarray(image.convert("RGB"))
    # ImportError: ultralytics, once imported, makes Pillow look for a HEIF plug-in when it cannot read a file.
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, ImportError) as error:
        return Rejection("unreadable", str(error).replace(str(file), file.name))
    found = finder.faces(picture)
    if len(found.boxes) != 1:
        return Rejection("several_faces" if len(found.boxes) else "no_face", f"{len(found.boxes)} faces")
    key = record_key(file.stem).replace("+", "%2B")
    crops = {
        name: face_crop(picture, found.boxes[0], size)
        for name, size in (("reference", params.reference_size), ("closeup", params.captioner_size))
    }
    meta: dict[str, JSON] = {"file": file.name, "attributes": attributes}
    return Record(key, meta, {**crops, "embedding": found.embeddings[0]})


def write_prompts(
    pairs: Iterable[Pair],
    pool: dict[str, np.ndarray],
    writer: Captioner,
    folder: Path,
    report: Report,
    params: PairsParams,
) -> int:
    """Write a prompt for every pair that gets one; returns how many do."""
    chosen = sorted((pair_key(pair), pair) for pair in pairs)

    def decide(pair: Pair) -> Record | Rejection:
        return prompt_of(pair, [pool[face] for face in pair], writer, params.prompt)

    return write_shards(kept(chosen, len(chosen), decide, report), folder, params.records_per_shard)


def prompt_of(
    pair: Pair, references: list[np.ndarray], writer: Captioner, params: SentenceParams
) -> Record | Rejection:
    """A prompt that mentions both people of a pair once, or why there is none."""
    key, instruction = pair_key(pair), PROMPT_INSTRUCTION.format(num_subjects=len(pair))
    answer, fault = "", None
    for seed in attempt_seeds(key, params):
        answer = writer.answer(
            references, instruction, temperature=params.temperature, seed=seed, max_tokens=params.max_tokens
        )
        fault = caption_fault(answer, len(pair), params)
        if fault is None:
            return Record(key, {"prompt": answer, "faces": list(pair)})
    return Rejection(fault or "caption_missing", answer)


def attempt_seeds(key: str, params: SentenceParams) -> Iterator[int]:
    """Seeds that belong to one pair, so that its prompt does not depend on which other pairs are drawn."""
    return (crc32(f"{params.seed}/{key}/{attempt}".encode()) for attempt in range(params.attempts))
