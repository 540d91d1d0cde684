"""``mcpipe score --suite psrbench``: any system's images scored on PSRBench.

``--prompts`` names the published folder, which also holds the references unless ``--references`` names another one.
``--images`` names a folder with one image per sample as the suite's authors store them, ``SUBSET/NUMBER.png``, or
``SUBSET-NUMBER.png`` (`mcpipe.bench.psr.suite.key_of`). ``OUT/NAME`` receives ``metrics.json``, ``rows.parquet`` and
``report.json``.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from mcpipe.bench.intervals import IntervalParams
from mcpipe.bench.psr.columns import METRICS, POLICY, SUITE
from mcpipe.bench.psr.metrics import PsrReference, PsrScorers, embed_reference, missing_image, score_image
from mcpipe.bench.psr.suite import SUBSETS, PsrTask, key_of, read_suite, reference_file, subset_of
from mcpipe.bench.psr.summary import SCORED, PsrScored, counts, means_with_intervals, subset_lines, subset_means
from mcpipe.bench.published import published_lines
from mcpipe.bench.tables import ArmScores, as_metrics, text_table
from mcpipe.cli.answers import files_by_prompt
from mcpipe.cli.outputs import Output, check_outputs
from mcpipe.cli.settings import Content
from mcpipe.core.params import Params, TakenFrom, params_of
from mcpipe.core.progress import track
from mcpipe.core.records import JSON
from mcpipe.core.report import Report
from mcpipe.core.shards import whole_folder
from mcpipe.core.texts import cut_facts, recorded_cuts
from mcpipe.execution.fingerprint import content_digest
from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.grounding import GroundingDino
from mcpipe.models.images import is_image, read_image
from mcpipe.models.scorers.dino import Dino
from mcpipe.models.scorers.judge import Judge
from mcpipe.models.scorers.preferences import load_preference, preference_name

MODELS = ("captioner", "dino", "hps")
"""Scorers in the section ``models`` of the settings; others have their paths in the suite's own section."""
PACKAGES = ("transformers", "open_clip_torch")
STAGE = "score"
ROWS = pa.schema(
    [(name, pa.string()) for name in ("key", "subset", "prompt", "picture", "status", "aligned_by")]
    + [("references", pa.list_(pa.string())), ("attempts", pa.int64())]
    + [(name, pa.float64()) for name in METRICS]
)
"""Columns of ``rows.parquet``; missing values are null."""

Features = Mapping[tuple[str, str], PsrReference]


class PsrBenchParams(Params):
    """Settings of PSRBench."""

    grounder: str | None
    """Folder of a Grounding DINO model, relative to the settings file."""
    preference: str | None
    """Folder of an HPSv3 model, relative to the settings file, which PSR scores with; null: models.hps."""
    box_threshold: float = Field(ge=0, le=1)
    """Certainty above which a box counts."""
    temperature: float = Field(ge=0)
    """Temperature of the judge's answers; 0 decodes greedily."""
    max_tokens: int = Field(ge=1)
    """Longest answer of the judge."""
    attempts: int = Field(ge=1)
    """Maximum number of answers to one question."""
    seed: int = Field(ge=0)
    """Seed of the first answer."""
    interval: Annotated[IntervalParams, TakenFrom("evaluate.interval")]
    """Settings of the interval of every mean."""


def score_psrbench(options: argparse.Namespace, content: Content, models: Mapping[str, Path], settings: Path) -> str:
    """Score a folder of images; returns the table to print.

    Raises:
        FileNotFoundError: a folder or a checkpoint is missing.
        ValueError: a setting or an option is invalid, the suite is damaged, or an output would replace an input.
        OSError: results cannot be written.
    """
    params = params_of(content, SUITE, PsrBenchParams, f"{settings}: ")
    if options.prompts is None:
        raise ValueError(f"--suite {SUITE} needs its published folder: --prompts DIR")
    if params.grounder is None:
        raise ValueError(f"--suite {SUITE} needs a Grounding DINO model: -S {SUITE}.grounder=DIR")
    if lacking := [name for name in MODELS if name not in models]:
        raise ValueError(f"{settings} lacks models.{lacking[0]}")
    used = {name: models[name] for name in MODELS} | {"grounder": settings.parent / params.grounder}
    if params.preference is not None:
        used["hps"] = settings.parent / params.preference
    place = options.out / options.name
    read = {"--images": options.images, "--prompts": options.prompts, "--references": options.references}
    read |= {"the settings": settings} | {f"models.{name}": path for name, path in used.items()}
    named = {name: path for name, path in read.items() if path is not None}
    check_outputs([Output("--out", place, "folder", "rows.parquet")], named)
    tasks = read_suite(options.prompts)
    report = Report(STAGE, PACKAGES)
    files, unknown = files_by_sample(options.images, {task.key for task in tasks})
    if not files:
        raise ValueError(f"no file in {options.images} answers a sample; call one {tasks[0].key}.png, for example")
    report.facts["files_without_prompt"] = [str(file.relative_to(options.images)) for file in unknown]
    scorers = load_scorers(used, params)
    folder = options.references or options.prompts
    features, absent = load_references(tasks, folder, scorers)
    report.facts |= {"suite": SUITE, "policy": POLICY, "references_missing": [*absent]}
    report.facts["references_not_located"] = [
        f"{path}: {category}" for (path, category), reference in features.items() if reference.located is None
    ]
    present = {task.subset for task in tasks}
    report.facts["subsets_missing"] = [subset for subset in SUBSETS if subset not in present]
    with recorded_cuts() as cut:
        scored = score_images(tasks, files, features, scorers, report)
    report.facts |= cut_facts(cut)
    facts = {"judge": judge_record(used["captioner"], params), "preference_model": preference_name(used["hps"])}
    scores = write_results(place, scored, report, params, facts | {"footing": protocol(tasks, folder, used, params)})
    lines = [text_table([scores]), "", *subset_lines(scored), *problems(scored, report), *published_lines(SUITE)]
    return "\n".join([*lines, f"written to {place}"])


def load_scorers(models: Mapping[str, Path], params: PsrBenchParams) -> PsrScorers:
    """The models that score images of the suite.

    Raises:
        FileNotFoundError: a checkpoint is missing.
        ValueError: a checkpoint is damaged.
    """
    captioner = Qwen2_5VL(models["captioner"])
    judge = Judge(captioner, params.temperature, params.max_tokens, params.attempts, params.seed)
    grounder = GroundingDino(models["grounder"], params.box_threshold)
    return PsrScorers(grounder, Dino(models["dino"]), load_preference(models["hps"]), judge)


def files_by_sample(images: Path, keys: set[str]) -> tuple[dict[str, list[Path]], list[Path]]:
    """The images of every sample, by key, and the files that belong to no sample or are not images.

    A subfolder is called after its subset in any spelling, and its files after the sample's number, ``7.png`` or
    ``0007.png``, or ``7_0.png``, ``7_1.png`` for several images.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: a file may be the only image of one sample or one of several images of another.
    """
    files, unknown = files_by_prompt(images, keys)
    for folder in sorted(folder for folder in images.iterdir() if folder.is_dir()):
        subset = subset_of(folder.name)
        for file in sorted(file for file in folder.iterdir() if not file.is_dir()):
            number = re.fullmatch(r"(\d+)(?:_\d+)?", file.stem)
            key = key_of(subset, int(number[1])) if subset and number else ""
            if key in keys and is_image(file):
                files.setdefault(key, []).append(file)
            else:
                unknown.append(file)
    return files, unknown


def load_references(tasks: Sequence[PsrTask], folder: Path, scorers: PsrScorers) -> tuple[Features, list[str]]:
    """Features of the references in a folder, by path and category, and the paths of those that are not there.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: a reference is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of references {folder}")
    pairs = dict.fromkeys(pair for task in tasks for pair in zip(task.references, task.categories, strict=True))
    features, absent = {}, []
    for path, category in track(pairs, len(pairs), "references"):
        file = reference_file(folder, path)
        if file is None:
            absent.append(path)
        else:
            features[path, category] = embed_reference(read_image(file, f"reference {path}"), category, scorers)
    return features, sorted(set(absent))


def score_images(
    tasks: Sequence[PsrTask],
    files: Mapping[str, list[Path]],
    features: Features,
    scorers: PsrScorers,
    report: Report,
) -> list[PsrScored]:
    """Score every image of every sample; missing and unreadable images count 0 and are reported."""
    scored = []
    for task in track(tasks, len(tasks), "score"):
        if task.key not in files:
            report.drop(task.key, "missing", f"no image is called {task.key}")
            scored.append(PsrScored(task, "", "missing", missing_image(task, features)))
        for file in files.get(task.key, []):
            name = f"{task.key}: {file.name}"
            try:
                picture = read_image(file)
            except (FileNotFoundError, ValueError) as error:
                report.drop(name, "unreadable", str(error))
                scored.append(PsrScored(task, file.name, "unreadable", missing_image(task, features)))
                continue
            score = score_image(picture, task, features, scorers)
            scored.append(PsrScored(task, file.name, SCORED, score))
            report.keep(name)
    return scored


def judge_record(folder: Path, params: PsrBenchParams) -> dict[str, JSON]:
    """The judge's model, version and settings, without which its scores cannot be compared."""
    configuration = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {
        "model": folder.resolve().name,
        "architecture": configuration.get("architectures"),
        "digest": content_digest(folder),
        "transformers": version("transformers"),
        **params.model_dump(include={"temperature", "max_tokens", "attempts", "seed"}),
    }


def protocol(
    tasks: Sequence[PsrTask], folder: Path, models: Mapping[str, Path], params: PsrBenchParams
) -> dict[str, JSON]:
    """Digests of samples, references and models, and settings: what results must share to be compared."""
    contents = {task.key: [task.prompt, *task.references, *task.categories] for task in tasks}
    paths = sorted({path for task in tasks for path in task.references})
    files = {path: file for path in paths if (file := reference_file(folder, path)) is not None}
    settings = params.model_dump(mode="json", exclude={"grounder", "preference"})
    return {
        "prompts": content_digest(contents),
        "references": content_digest(files),
        **{f"models.{name}": content_digest(path) for name, path in models.items()},
        **{f"{SUITE}.{name}": value for name, value in settings.items()},
    }


def write_results(
    results: Path, scored: Sequence[PsrScored], report: Report, params: PsrBenchParams, facts: Mapping[str, JSON]
) -> ArmScores:
    """Write means to ``metrics.json``, a row per image to ``rows.parquet``, and the report; returns the means.

    Raises:
        ValueError: there are fewer than two samples.
    """
    means = means_with_intervals(scored, params.interval)
    num_missing = sum(item.status != SCORED for item in scored)
    scores = ArmScores(results.name, means, len(scored), SUITE, num_missing)
    content = as_metrics(scores) | counts(scored) | {"subsets": subset_means(scored)} | dict(facts)
    rows = [
        {"key": item.task.key, "subset": item.task.subset, "prompt": item.task.prompt, "picture": item.picture}
        | {"status": item.status, "references": [*item.task.references]}
        | vars(item.score)
        for item in scored
    ]
    with whole_folder(results) as folder:
        (folder / "metrics.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        pq.write_table(pa.Table.from_pylist(rows, schema=ROWS), folder / "rows.parquet")
        report.write(folder)
    return scores


def problems(scored: Sequence[PsrScored], report: Report) -> list[str]:
    """A line for each kind of problem, with its number."""
    lost = Counter(str(rejection["reason"]) for rejection in report.rejections)
    lines = [f"{number} {reason}, scored 0" for reason, number in sorted(lost.items())]
    number_of = counts(scored)
    for name, words in (
        ("num_unparsed", "images have no valid score of the judge; SA leaves them out"),
        ("num_position_by_judge", "images of Position have no known relation in their prompt; the judge scored them"),
        ("num_not_located", "images lack a subject, which counts 0"),
    ):
        if number_of[name]:
            lines.append(f"{number_of[name]} {words}")
    for fact, words in (
        ("subsets_missing", "subsets are not in the folder"),
        ("files_without_prompt", "files answer no sample and are not scored"),
        ("references_missing", "references are not there; their samples have no SC"),
        ("references_not_located", "references do not show their category to the detector; they count 0 in SC"),
    ):
        names = report.facts.get(fact)
        if isinstance(names, list) and names:
            lines.append(f"{len(names)} {words}; report.json names them")
    return lines
