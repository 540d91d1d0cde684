"""Who appears together, and a prompt for every pair.

Departures from the paper:

1. Prompts are sampled anew, a few times, until one mentions everyone once.
2. Faces can be split between the benchmark and training, too (see `mcpipe.bench.pairs`).
3. A pair of the benchmark without a usable prompt is replaced, so that the benchmark has the size asked for.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated
from zlib import crc32

import numpy as np
from pydantic import Field

from mcpipe.bench.balance import Labels, counts, evenness, largest_gap
from mcpipe.bench.landmarks import face_landmarks
from mcpipe.bench.pairs import Pair, Split, SplitParams, all_pairs, pair_key, split_pairs
from mcpipe.core.params import Params, RecordsPerShard, TakenFrom
from mcpipe.core.records import JSON, Record, Rejection, record_key
from mcpipe.core.report import Report
from mcpipe.core.shards import whole_folder, write_shards
from mcpipe.curate.captions import PROMPT_INSTRUCTION, SentenceParams, caption_fault
from mcpipe.curate.samples import face_crop
from mcpipe.execution.engine import kept
from mcpipe.models.images import read_picture
from mcpipe.models.protocols import Captioner, FaceAnalyser

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
ATTRIBUTES = "faces.csv"
"""Optional table beside the pictures: a column ``file``, all others describe the person."""


class PairsParams(Params):
    """Faces, pairs and prompts."""

    min_face_score: float = Field(ge=0, le=1)
    """Certainty of a face detection."""
    detection_size: int = Field(ge=32)
    """Side in pixels at which the detector sees a picture."""
    reference_size: Annotated[int, Field(ge=16), TakenFrom("samples.reference_size")]
    """Side of a face reference in pixels, the one the generator was trained with (paper: 320)."""
    captioner_size: int = Field(ge=28)
    """Side in pixels at which the captioner sees a face."""
    attributes: list[str]
    """Columns of the pool's table by which the draw is balanced and reported; what is not there counts as not given."""
    split: SplitParams
    """Which pairs are the benchmark."""
    prompt: SentenceParams
    """What a prompt must be like; every attempt is sampled, from a seed of its own pair."""
    records_per_shard: RecordsPerShard


def write_pairs(faces: Path, finder: FaceAnalyser, writer: Captioner, pairs: Path, params: PairsParams) -> None:
    """Write the usable faces, the benchmark's prompts and the prompts for reinforcement learning.

    Raises:
        FileNotFoundError: the folder of faces is missing or holds no picture.
        ValueError: there are too few usable faces, or no pair has a usable prompt.
    """
    with whole_folder(pairs) as folder:
        pool, labels = write_faces(faces, finder, folder / "faces", params)
        split = split_pairs(list(pool), params.split, labels)
        report = Report("pairs", ("transformers", "qwen-vl-utils"))
        chosen = write_prompts(split, pool, writer, folder, report, params)
        for name, written in chosen.items():
            if not written:
                raise ValueError(f"no pair of the {name} set has a usable prompt; the last reasons are in the log")
        report.facts = {
            "split": params.split.split,
            "draw": params.split.draw,
            "faces": len(pool),
            "all_pairs": len(all_pairs(list(pool))),
            "bench_wanted": params.split.num_bench,
            **{name: len(written) for name, written in chosen.items()},
            "attributes": composition(params.attributes, labels, pool, chosen),
        }
        report.write(folder)


def composition(
    attributes: Iterable[str], labels: Labels, pool: Iterable[str], chosen: Mapping[str, Iterable[Pair]]
) -> dict[str, JSON]:
    """How often every value of every attribute appears in the pool and in each set of pairs, and how even that is."""
    told: dict[str, JSON] = {}
    groups = {name: [face for pair in pairs for face in pair] for name, pairs in chosen.items()}
    for attribute in attributes:
        whole = counts(attribute, pool, labels)
        parts = {name: counts(attribute, faces, labels) for name, faces in groups.items()}
        told[attribute] = {
            "pool": {**whole},
            **{name: {**found} for name, found in parts.items()},
            "evenness_of_pool": round(evenness(whole), 4),
            **{f"largest_gap_{name}": round(largest_gap(found, whole), 4) for name, found in parts.items()},
        }
    return told


def write_faces(
    faces: Path, finder: FaceAnalyser, folder: Path, params: PairsParams
) -> tuple[dict[str, np.ndarray], Labels]:
    """Write every picture with exactly one face; returns by key what the captioner sees, and the attributes given.

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
    given = {record.key: attributes.get(record.text("file"), {}) for record in found}
    labels = {key: {name: str(row[name]) for name in params.attributes if row.get(name)} for key, row in given.items()}
    return {record.key: record.arrays["closeup"] for record in found}, labels


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
        picture = read_picture(file)
    except ValueError as error:
        return Rejection("unreadable", str(error))
    found = finder.faces(picture)
    if len(found.boxes) != 1:
        return Rejection("several_faces" if len(found.boxes) else "no_face", f"{len(found.boxes)} faces")
    key = record_key(file.stem).replace("+", "%2B")
    crops = {
        name: face_crop(picture, found.boxes[0], size)
        for name, size in (("reference", params.reference_size), ("closeup", params.captioner_size))
    }
    meta: dict[str, JSON] = {"file": file.name, "attributes": attributes}
    landmarks = face_landmarks(found.landmarks[0], found.boxes[0])
    return Record(key, meta, {**crops, "embedding": found.embeddings[0], "landmarks": landmarks})


def write_prompts(  # noqa: PLR0913  one argument per thing that a prompt depends on
    split: Split,
    pool: Mapping[str, np.ndarray],
    writer: Captioner,
    folder: Path,
    report: Report,
    params: PairsParams,
) -> dict[str, list[Pair]]:
    """Write the prompts of the benchmark and of reinforcement learning; returns the pairs that have one, by set.

    Pairs of the benchmark without a usable prompt are replaced from the reserve, so that it has the size asked for.
    """

    def decide(pair: Pair) -> Record | Rejection:
        return prompt_of(pair, [pool[face] for face in pair], writer, params.prompt)

    def prompts(pairs: Iterable[Pair], number: int) -> list[Record]:
        found = kept(((pair_key(pair), pair) for pair in pairs), number, decide, report)
        return sorted(islice(found, number), key=lambda record: record.key)

    bench = prompts([*split.bench, *split.reserve], params.split.num_bench)
    asked = {*report.kept, *(str(rejection["key"]) for rejection in report.rejections)}
    left = [pair for pair in split.rl if pair_key(pair) not in asked]
    chosen = {"bench": bench, "rl": prompts(left, len(left))}
    for name, records in chosen.items():
        write_shards(records, folder / name, params.records_per_shard)
    return {name: [pair_of(record) for record in records] for name, records in chosen.items()}


def pair_of(prompt: Record) -> Pair:
    """Who should be shown."""
    first, second = prompt.texts("faces")
    return first, second


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
