"""Scores of any system's images for a suite of prompts, by the scorers and with the files of the stage ``evaluate``.

``DIR`` holds one image per prompt, called after the prompt's key (``KEY.png``), or several (``KEY_0.png``,
``KEY_1.png``), whose mean then counts. ``OUT/NAME`` receives ``metrics.json``, ``rows.parquet`` and ``report.json``, so
that the images stand in the same table as the arms of the pipeline. A prompt without a readable image is named,
counted, and scored 0 wherever higher is better; files that answer no prompt are named and not scored, and a folder in
which none does is refused.
"""

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mcpipe.bench.metrics import Score, missing, references, score
from mcpipe.bench.psr.columns import SUITE as PSRBENCH
from mcpipe.bench.public_metrics import (
    PublicScorers,
    missing_image,
    score_image,
)
from mcpipe.bench.published import published_lines
from mcpipe.bench.suites import ALL_IMAGES, PUBLIC, Task
from mcpipe.bench.tables import PEOPLE, POLICY, POLICY_PUBLIC, text_table
from mcpipe.cli.answers import files_by_prompt
from mcpipe.cli.export import write_export
from mcpipe.cli.outputs import Output, check_outputs
from mcpipe.cli.psrbench import score_psrbench
from mcpipe.cli.references import load_features, reference_files
from mcpipe.cli.settings import located, read_content, settings_file
from mcpipe.core.offline import stay_offline
from mcpipe.core.params import params_of
from mcpipe.core.progress import track
from mcpipe.core.records import JSON
from mcpipe.core.report import Report, read_report
from mcpipe.core.schemas.benchmark import PairPrompt, PoolFace
from mcpipe.core.shards import read_shards
from mcpipe.core.texts import CUT_FACT, cut_facts, recorded_cuts
from mcpipe.models.faces import InsightFaces
from mcpipe.models.images import read_image
from mcpipe.models.protocols import Picture
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.dino import Dino
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.steps.evaluate import (
    MODELS,
    PACKAGES,
    REWARD_MODELS,
    SCORED,
    EvaluateParams,
    ScoredImage,
    facts,
    load_pick_score,
    load_scorers,
    people_protocol,
    pick_score_place,
    protocol_of,
    write_results,
)

STAGE = "score"
NUM_NAMED = 10
"""Maximum number of missing images named on the terminal; the report names all."""

Answer = Callable[[Picture | None], Score]
"""Function that scores a prompt's image, or a missing image as ``None``."""
Prompts = dict[str, tuple[str, Answer, tuple[str, ...]]]
Tasks = tuple[Prompts, dict[str, JSON]]
"""Prompts by key, each with the scoring of its image and its references; and the protocol of the scores."""


def command(options: argparse.Namespace) -> str:
    """Run the verb; returns the table to print.

    Raises:
        FileNotFoundError: a folder, a prompt file or a checkpoint is missing.
        ValueError: a name or a setting is invalid, a file is damaged, or an output would replace an input.
        OSError: results cannot be written.
    """
    if options.handout:
        if options.suite != PEOPLE:
            raise ValueError(f"--handout is for --suite {PEOPLE}; the prompts of {options.suite} are published")
        check_outputs([Output("--handout", options.handout, "folder", "prompts.csv")], {"--pairs": options.pairs})
        return write_export(options.pairs, options.handout)
    if not options.images or not options.name:
        raise ValueError("score takes --images DIR and --name NAME")
    stay_offline()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    # A line for every missing image would hide the summary at the end.
    logging.getLogger("mcpipe").setLevel(os.environ.get("MCPIPE_LOG", "WARNING"))
    check_name(options.name)
    file = settings_file()
    content = read_content(file, options.conf, options.changes)
    params = located_params(params_of(content, "evaluate", EvaluateParams, f"{file}: "), file.parent)
    models = located(content, file.parent)
    if options.suite == PSRBENCH:
        check_results(options.out / options.name)
        return score_psrbench(options, content, models, file)
    if lacking := [name for name in (*MODELS, *REWARD_MODELS) if name not in models]:
        raise ValueError(f"{file} lacks models.{lacking[0]}")
    check_place(options, models | pick_score_place(params), file)
    check_results(options.out / options.name)
    report = Report(STAGE, PACKAGES)
    if options.suite == PEOPLE:
        tasks, protocol = people_tasks(options.pairs, models, params, report)
    else:
        tasks, protocol = public_tasks(options, models, params, report)
    with recorded_cuts() as cut:
        scored = list(score_images(tasks, options.images, report))
    report.facts |= cut_facts(cut)
    scores = write_results(options.out / options.name, scored, report, params.interval, protocol)
    lines = [text_table([scores]), *problems(report), *published_lines(options.suite)]
    return "\n".join([*lines, f"written to {options.out / options.name}"])


def located_params(params: EvaluateParams, folder: Path) -> EvaluateParams:
    """The settings with their path starting from the folder of the settings file."""
    place = str(folder / params.pick_score) if params.pick_score else None
    return params.model_copy(update={"pick_score": place})


def check_name(name: str) -> None:
    """Check that a system's name is a valid name of a folder.

    Raises:
        ValueError: the name is invalid.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"--name {name!r}: should be of letters, digits, dots, dashes and underscores")


def check_results(folder: Path) -> None:
    """Check that a system's results replace only its own earlier results.

    Raises:
        ValueError: the results would replace those of an arm, or files of unknown origin.
    """
    if not folder.exists():
        return
    try:
        stage = read_report(folder)["stage"]
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"{error}; or remove {folder}, or choose another --name") from error
    if stage != STAGE:
        raise ValueError(f"{folder} is an arm of the pipeline; choose another --name")


def check_place(options: argparse.Namespace, models: dict[str, Path], settings: Path) -> None:
    """Check that results can be written and replace no input.

    Raises:
        ValueError: the results would replace an input.
        OSError: the results cannot be written.
    """
    named = {"--images": options.images, "--prompts": options.prompts, "--references": options.references}
    named |= {"--pairs": options.pairs if options.suite == PEOPLE else None, "the settings": settings}
    read = {name: path for name, path in named.items() if path is not None}
    read |= {f"models.{name}": path for name, path in models.items()}
    check_outputs([Output("--out", options.out / options.name, "folder", "rows.parquet")], read)


def people_tasks(pairs: Path, models: dict[str, Path], params: EvaluateParams, report: Report) -> Tasks:
    """The prompts of the pipeline's own benchmark."""
    pool = list(read_shards(pairs / "faces", PoolFace))
    models = {name: models[name] for name in (*MODELS, *REWARD_MODELS)}
    scorers = load_scorers(*(models[name] for name in MODELS), pool=pool, params=params)
    people = references(pool, scorers, params.phrases)
    report.facts = facts(params, PEOPLE, POLICY, scorers.faces.name, scorers.heldout.name, people)

    absent = as_absent(missing(), params)

    def answer(prompt: str, subjects: Sequence[str]) -> Answer:
        return lambda picture: absent if picture is None else score(picture, prompt, subjects, people, scorers)

    prompts = list(read_shards(pairs / "bench", PairPrompt))
    tasks = {prompt.key: (prompt.prompt, answer(prompt.prompt, prompt.names), prompt.names) for prompt in prompts}
    return tasks, people_protocol(prompts, pool, models, params)


def public_tasks(options: argparse.Namespace, models: dict[str, Path], params: EvaluateParams, report: Report) -> Tasks:
    """The prompts of a public suite.

    Raises:
        FileNotFoundError: the prompt file is missing.
        ValueError: the prompt file is damaged, or the option is missing.
    """
    if options.prompts is None:
        raise ValueError(f"--suite {options.suite} needs its published prompt file: --prompts FILE")
    try:
        tasks = PUBLIC[options.suite](options.prompts.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{options.prompts} is no prompt file of {options.suite}: {error}") from error
    subjects = {subject.picture: subject for task in tasks for subject in task.subjects}
    faces, heldout = (
        [InsightFaces(models[name], params.min_face_score, params.detection_size) for name in MODELS[:2]]
        if any(subject.is_person for subject in subjects.values())
        else [None, None]
    )
    scorers = PublicScorers(
        Clip(models["clip"]), Dino(models["dino"]), HpsV2_1(models["hps"]), faces, heldout, load_pick_score(params)
    )
    images = reference_files(subjects, options.references, every=options.suite in ALL_IMAGES)
    features = load_features(subjects, images, scorers)
    names = [analyser and analyser.name for analyser in (faces, heldout)]
    unknown: list[JSON] = [*sorted(subjects.keys() - features.keys())]
    report.facts = {
        **facts(params, options.suite, POLICY_PUBLIC, *names, people={}),
        "references": len(features),
        "references_missing": unknown,
    }

    def answer(task: Task) -> Answer:
        absent = as_absent(missing_image(task, features), params)
        return lambda image: score_image(image, task, features, scorers) if image is not None else absent

    contents = {task.key: [task.prompt, *(subject.picture for subject in task.subjects)] for task in tasks}
    used = [name for name in MODELS if faces or name not in MODELS[:2]]
    files = {path if len(some) == 1 else f"{path}: {file.name}": file for path, some in images.items() for file in some}
    protocol = protocol_of(contents, files, {name: models[name] for name in used}, params)
    return {task.key: (task.prompt, answer(task), tuple(contents[task.key][1:])) for task in tasks}, protocol


def as_absent(score_of_nothing: Score, params: EvaluateParams) -> Score:
    """The score of a missing image, 0 also by the optional scorer where it is set."""
    return replace(score_of_nothing, pick_score=0.0) if params.pick_score else score_of_nothing


def score_images(tasks: Prompts, images: Path, report: Report) -> list[ScoredImage]:
    """Score every image of every prompt; missing and unreadable images count 0 and are reported.

    Raises:
        FileNotFoundError: the folder of images does not exist.
        ValueError: no file belongs to a prompt, or a file may belong to either of two.
    """
    files, unknown = files_by_prompt(images, set(tasks))
    if not files:
        example = f"{min(tasks)}.png" if tasks else "KEY.png"
        raise ValueError(
            f"no file in {images} answers a prompt; a picture is called after the prompt's key, such as {example}"
        )
    unlisted: list[JSON] = [file.name.encode(errors="backslashreplace").decode() for file in unknown]
    report.facts["files_without_prompt"] = unlisted
    scored = []
    for key, (prompt, answer, faces) in track(tasks.items(), len(tasks), f"score {images.name}"):
        if key not in files:
            report.drop(key, "missing", f"no image is called {key}")
            scored.append(ScoredImage(key, prompt, "", "missing", answer(None), faces))
        for file in files.get(key, []):
            try:
                scored.append(ScoredImage(key, prompt, file.name, SCORED, answer(read_image(file)), faces))
                report.keep(file.name)
            except (FileNotFoundError, ValueError) as error:
                report.drop(file.name, "unreadable", str(error))
                scored.append(ScoredImage(key, prompt, file.name, "unreadable", answer(None), faces))
    return scored


def problems(report: Report) -> list[str]:
    """A line for each kind of problem in a report."""
    lines = []
    for reason in ("missing", "unreadable"):
        if names := [str(lost["key"]) for lost in report.rejections if lost["reason"] == reason]:
            lines.append(f"{len(names)} {reason}, scored 0: {_some(names)}")
    for fact, words in (
        ("files_without_prompt", "files answer no prompt and are not scored"),
        ("references_missing", "references are not there; their prompts have CLIP-T and HPS only"),
    ):
        names = report.facts.get(fact)
        if isinstance(names, list) and names:
            lines.append(f"{len(names)} {words}: {_some([str(name) for name in names])}")
    counts = report.facts.get(CUT_FACT)
    for encoder, number in counts.items() if isinstance(counts, dict) else ():
        lines.append(f"{number} prompts are longer than the {encoder} reads, which scores their beginning")
    return lines


def _some(names: list[str]) -> str:
    more = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")
