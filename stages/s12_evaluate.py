"""Stage 12: scores of one arm's pictures, one by one and as means with intervals."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from mcpipe.bench.bootstrap import IntervalParams
from mcpipe.bench.metrics import Judges, Score, as_row, references, score, summary
from mcpipe.bench.tables import as_metrics
from mcpipe.curate.samples import face_crop
from mcpipe.models.clip import Clip
from mcpipe.models.dino import Dino
from mcpipe.models.faces import InsightFaces
from mcpipe.models.hps import HpsV2_1
from mcpipe.params import Params
from mcpipe.progress import track
from mcpipe.records import Record
from mcpipe.report import Report
from mcpipe.shards import read_shards, whole_folder


class EvaluateParams(Params):
    """How pictures are judged."""

    min_face_score: float = Field(ge=0, le=1)
    """Certainty of a face detection."""
    detection_size: int = Field(ge=32)
    """Side in pixels at which the detector sees a picture."""
    interval: IntervalParams
    """Of every mean."""


def run(  # noqa: PLR0913  one argument per path in dvc.yaml
    pairs: Path, images: Path, faces: Path, clip: Path, dino: Path, hps: Path, results: Path, params: EvaluateParams
) -> None:
    """Write ``metrics.json``, a row per picture in ``rows.parquet``, and the report.

    Raises:
        ValueError: a benchmark prompt has no picture or a picture no prompt.
    """
    pool = list(read_shards(pairs / "faces"))
    size = pool[0].arrays["reference"].shape[0]
    judges = Judges(
        faces=InsightFaces(faces, params.min_face_score, params.detection_size),
        clip=Clip(clip),
        dino=Dino(dino),
        hps=HpsV2_1(hps),
        crop=partial(face_crop, size=size),
    )
    answered = answers(pairs / "bench", images)
    people = references(pool, judges)
    report = Report("evaluate", ("transformers", "open_clip_torch", "insightface", "onnxruntime"))
    scores = []
    for prompt, picture in track(answered, len(answered), f"evaluate {images.name}"):
        wanted = [people[face] for face in prompt.texts("faces")]
        scores.append(score(picture.arrays["image"], prompt.text("prompt"), wanted, judges))
        report.keep(prompt.key)
    means = summary(scores, params.interval)
    report.facts = {
        "min_face_score": params.min_face_score,
        "detection_size": params.detection_size,
        "resamples": params.interval.resamples,
    }
    with whole_folder(results) as folder:
        (folder / "metrics.json").write_text(json.dumps(as_metrics(means, len(scores)), indent=1) + "\n")
        write_rows(folder / "rows.parquet", [prompt for prompt, _ in answered], scores)
        report.write(folder)


def answers(prompts: Path, images: Path) -> list[tuple[Record, Record]]:
    """Every prompt of the benchmark with its picture.

    Raises:
        ValueError: one has no other.
    """
    wanted = {record.key: record for record in read_shards(prompts)}
    pictures = {record.key: record for record in read_shards(images)}
    if wanted.keys() != pictures.keys():
        odd = sorted(wanted.keys() ^ pictures.keys())
        raise ValueError(
            f"{images} and {prompts} do not fit: {len(odd)} keys are in one only, the first is {odd[0]!r}; "
            "run generate again"
        )
    return [(wanted[key], pictures[key]) for key in sorted(wanted)]


def write_rows(file: Path, prompts: Sequence[Record], scores: Sequence[Score]) -> None:
    """One row per picture: its key, its prompt and its scores."""
    rows = [
        {"key": prompt.key, "prompt": prompt.text("prompt"), **as_row(score)}
        for prompt, score in zip(prompts, scores, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)
