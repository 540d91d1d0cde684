"""Scores of one arm's images, per image and as means with intervals."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from mcpipe.bench.by_number import means_by_number
from mcpipe.bench.control_scores import ceiling_of, control_scores, with_controls
from mcpipe.bench.controls import CONTROLS, TARGETS
from mcpipe.bench.intervals import Interval, IntervalParams
from mcpipe.bench.metrics import MetricScorers, Reference, Score, as_row, references, score, summary
from mcpipe.bench.tables import METRICS, PEOPLE, POLICY, ArmScores, as_headline, as_metrics
from mcpipe.core.params import Params, TakenFrom
from mcpipe.core.progress import track
from mcpipe.core.records import JSON
from mcpipe.core.report import Report
from mcpipe.core.schemas.benchmark import GeneratedImage, PairPrompt, PoolFace
from mcpipe.core.shards import read_shards, whole_folder
from mcpipe.core.texts import cut_facts, recorded_cuts
from mcpipe.curate.samples import face_crop
from mcpipe.execution.fingerprint import content_digest
from mcpipe.models.faces import InsightFaces
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.dino import Dino
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.models.scorers.pick_score import PickScore

MODELS: tuple[str, ...] = ("faces", "faces_heldout", "clip", "dino", "hps")
"""The scorers in params.yaml, in the order in which they are loaded."""
REWARD_MODELS: tuple[str, ...] = ("reward_clip", "reward_hps")
"""The models in params.yaml that reward stage 3 beside the first recogniser; they are named and score nothing."""
PACKAGES = ("transformers", "open_clip_torch", "insightface", "onnxruntime")
"""Those whose version a score depends on."""
SCORED = "scored"
"""The status of an image that was there."""


TEXTS, LISTS = ("key", "prompt", "picture", "status"), ("same", "cross")


class EvaluateParams(Params):
    """Settings of the evaluation."""

    min_face_score: float = Field(ge=0, le=1)
    """Certainty of a face detection."""
    detection_size: int = Field(ge=32)
    """Side in pixels at which the detector sees an image."""
    pick_score: str | None
    """Folder of a CLIP model trained on preferences, for one more column; null for none."""
    phrases: list[str]
    """Columns of the face pool's table that hold a phrase about one lasting trait each, for leaks; empty for none."""
    interval: IntervalParams
    """Settings of the interval of every mean."""


class ObjectScoreParams(Params):
    """Settings of the evaluation of objects."""

    min_score: Annotated[float, Field(ge=0, le=1), TakenFrom("grounding.min_score")]
    """Certainty from which a box counts."""
    pick_score: str | None
    """Folder of a CLIP model trained on preferences, for one more column; null for none."""
    interval: Annotated[IntervalParams, TakenFrom("evaluate.interval")]
    """Settings of the interval of every mean; those of people."""


@dataclass(frozen=True)
class ScoredImage:
    """An image with its score."""

    key: str
    """Key of the image's prompt."""
    prompt: str
    picture: str
    """Which one of the prompt's images it is: a file's name, or the key once more."""
    status: str
    """`SCORED`, or why the image counts 0."""
    score: Score
    references: tuple[str, ...] = ()
    """The people or things whom the prompt names, over which intervals are taken; empty if it stands for itself."""


def write_branch_scores(  # noqa: PLR0913  one argument per path in dvc.yaml
    pairs: Path, images: Path, faces: Path, faces_heldout: Path, clip: Path, dino: Path, hps: Path, results: Path,
    params: EvaluateParams,
) -> None:  # fmt: skip
    """Write the scores of an arm of a branch, as `write_scores` does for the pipeline's own; the stage of a branch.

    Raises:
        ValueError: a benchmark prompt has no image or an image no prompt.
    """
    models = dict(zip(MODELS, (faces, faces_heldout, clip, dino, hps), strict=True))
    write_scores(pairs, images, models, results, params)


def write_scores(pairs: Path, images: Path, models: Mapping[str, Path], results: Path, params: EvaluateParams) -> None:
    """Write ``metrics.json``, its ``headline.json``, a row per image in ``rows.parquet``, and the report.

    ``models`` holds the paths of `MODELS` and `REWARD_MODELS` by name.

    Raises:
        ValueError: a benchmark prompt has no image or an image no prompt.
    """
    pool = list(read_shards(pairs / "faces", PoolFace))
    scorers = load_scorers(*(models[name] for name in MODELS), pool=pool, params=params)
    answered = answers(pairs / "bench", images)
    people = references(pool, scorers, params.phrases)
    report = Report("evaluate", PACKAGES)
    controls = control_scores([prompt for prompt, _ in answered], images / CONTROLS, people, scorers)
    scored = []
    with recorded_cuts() as cut:
        for prompt, picture in track(answered, len(answered), f"evaluate {images.name}"):
            points = score(picture.image, prompt.prompt, prompt.names, people, scorers, picture.attention)
            beside = with_controls(points, controls[prompt.key])
            scored.append(ScoredImage(prompt.key, prompt.prompt, prompt.key, SCORED, beside, prompt.names))
            report.keep(prompt.key)
    report.facts = facts(params, PEOPLE, POLICY, scorers.faces.name, scorers.heldout.name, people) | cut_facts(cut)
    ceiling, faceless = ceiling_of(images / CONTROLS / TARGETS, scorers.faces, params.interval)
    report.facts |= {"targets_without_face": faceless}
    protocol = people_protocol([prompt for prompt, _ in answered], pool, models, params)
    write_results(results, scored, report, params.interval, protocol, ceiling)


def load_scorers(  # noqa: PLR0913  one argument per model
    faces: Path, heldout: Path, clip: Path, dino: Path, hps: Path, pool: list[PoolFace], params: EvaluateParams
) -> MetricScorers:
    """The models that score images of people, with crops like the faces of the pool.

    Raises:
        FileNotFoundError: a checkpoint is missing.
        ValueError: a checkpoint is damaged or the pool is empty.
    """
    if not pool:
        raise ValueError("the pool of faces is empty; run pairs again")
    return MetricScorers(
        faces=InsightFaces(faces, params.min_face_score, params.detection_size),
        heldout=InsightFaces(heldout, params.min_face_score, params.detection_size),
        clip=Clip(clip),
        dino=Dino(dino),
        hps=HpsV2_1(hps),
        crop=partial(face_crop, size=pool[0].reference.shape[0]),
        pick_score=load_pick_score(params),
    )


def pick_score_place(params: EvaluateParams | ObjectScoreParams) -> dict[str, Path]:
    """The folder of the optional scorer by its name; empty if it is not set."""
    return {"pick_score": Path(params.pick_score)} if params.pick_score else {}


def load_pick_score(params: EvaluateParams | ObjectScoreParams) -> PickScore | None:
    """The optional scorer of preference, if its folder is set.

    Raises:
        FileNotFoundError: its checkpoint is missing.
        ValueError: its checkpoint is damaged.
    """
    return PickScore(Path(params.pick_score)) if params.pick_score else None


def facts(  # noqa: PLR0913  one argument per fact
    params: EvaluateParams,
    suite: str,
    policy: str,
    recogniser: str | None,
    heldout: str | None,
    people: Mapping[str, Reference],
) -> dict[str, JSON]:
    """Facts that a reader needs to interpret the scores."""
    return {
        "suite": suite,
        "policy": policy,
        "recogniser": recogniser,
        "heldout_recogniser": heldout,
        "references_unseen_by_heldout": sum(not person.heldout.any() for person in people.values()),
        "min_face_score": params.min_face_score,
        "detection_size": params.detection_size,
        "resamples": params.interval.resamples,
    }


def people_protocol(
    prompts: Iterable[PairPrompt], pool: Iterable[PoolFace], models: Mapping[str, Path], params: EvaluateParams
) -> dict[str, JSON]:
    """The protocol of a result of the pipeline's own benchmark."""
    contents = {prompt.key: [prompt.prompt, *prompt.names] for prompt in prompts}
    reference_digests = {face.key: sha256(face.reference.tobytes()).hexdigest() for face in pool}
    return protocol_of(contents, reference_digests, models, params)


def protocol_of(
    prompts: Mapping[str, list[str]],
    references: Mapping[str, str | Path],
    models: Mapping[str, Path],
    params: EvaluateParams | ObjectScoreParams,
) -> dict[str, JSON]:
    """The protocol of a result: digests of prompts, references and models, and settings, for `comparable`."""
    settings = params.model_dump(mode="json", exclude={"pick_score"})
    return {
        "prompts": content_digest(prompts),
        "references": content_digest(references),
        **{f"models.{name}": content_digest(path) for name, path in {**models, **pick_score_place(params)}.items()},
        **{f"evaluate.{name}": value for name, value in settings.items()},
    }


def answers(prompts: Path, images: Path) -> list[tuple[PairPrompt, GeneratedImage]]:
    """Every prompt of the benchmark with its image.

    Raises:
        ValueError: a prompt has no image, or an image has no prompt.
    """
    prompt_by_key = {prompt.key: prompt for prompt in read_shards(prompts, PairPrompt)}
    pictures = {image.key: image for image in read_shards(images, GeneratedImage)}
    if prompt_by_key.keys() != pictures.keys():
        odd = sorted(prompt_by_key.keys() ^ pictures.keys())
        raise ValueError(
            f"{images} and {prompts} do not fit: {len(odd)} keys are in one only, the first is {odd[0]!r}; "
            "run generate again"
        )
    return [(prompt_by_key[key], pictures[key]) for key in sorted(prompt_by_key)]


def write_results(
    results: Path,
    scored: list[ScoredImage],
    report: Report,
    params: IntervalParams,
    protocol: Mapping[str, JSON],
    ceiling: Mapping[str, Interval] | None = None,
) -> ArmScores:
    """Write means to ``metrics.json`` and ``headline.json``, a row per image to ``rows.parquet``, and the report.

    ``ceiling`` holds means that are not of these images. Returns all means.

    Raises:
        ValueError: there are fewer than two prompts.
    """
    units = {item.key: item.references for item in scored}
    means = summary([item.key for item in scored], units, [item.score for item in scored], params) | dict(ceiling or {})
    num_missing = sum(item.status != SCORED for item in scored)
    suite = str(report.facts["suite"])
    people = [len(item.references) for item in scored] if suite == PEOPLE else []
    by_number = means_by_number(people, [as_row(item.score) for item in scored] if people else [], METRICS)
    scores = ArmScores(results.name, means, len(scored), suite, num_missing, protocol, by_number)
    with whole_folder(results) as folder:
        for name, content in (("metrics", as_metrics(scores)), ("headline", as_headline(scores))):
            (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        write_rows(folder / "rows.parquet", scored)
        report.write(folder)
    return scores


def write_rows(file: Path, items: Sequence[ScoredImage]) -> None:
    """One row per image: its prompt, which one it is, whether it was there, and its scores."""
    rows = [
        {name: getattr(item, name) for name in TEXTS} | {"references": [*item.references]} | as_row(item.score)
        for item in items
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=columns_of(items[0].score)), file)


def columns_of(score: Score) -> pa.Schema:
    """Columns of ``rows.parquet``, equal for all suites but for the controls of objects; missing values are null."""
    scores = [(field.name, pa.list_(pa.float64()) if field.name in LISTS else pa.float64()) for field in fields(score)]
    return pa.schema([*((name, pa.string()) for name in TEXTS), ("references", pa.list_(pa.string())), *scores])
