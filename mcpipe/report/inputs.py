"""Inputs of the report, from the outputs of all stages."""

import csv
import logging
from collections.abc import Mapping, Sequence, Set
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError
from safetensors.numpy import load_file

from mcpipe.bench.controls import CONTROLS, METRIC_OF, ControlKind
from mcpipe.bench.results import read_scores
from mcpipe.bench.tables import ArmScores, comparable
from mcpipe.core.report import read_report
from mcpipe.core.schemas.benchmark import GeneratedImage, PairPrompt, PoolFace
from mcpipe.core.schemas.curation import FramePair, Sample
from mcpipe.core.shards import read_packed, read_shards
from mcpipe.curate.clips import ClipFile, file_names
from mcpipe.models.first_frame import first_frame
from mcpipe.report.ablation import Ablation
from mcpipe.report.content import Account, ClipTile, Curves, Extremes, PromptRow
from mcpipe.report.figures import curve_plot, usage_plot
from mcpipe.report.gallery import Fate, ReportParams, clip_tile, example, examples, extreme_keys, row

logger = logging.getLogger(__name__)

LIVE = "live/plots/metrics"
"""Where DVCLive keeps its tables inside a training stage's output."""
USAGE = ("held_out", "after", "expert_shares")
"""Path among a training stage's facts of each expert's share of the tokens, by layer and kind of token."""
UNSAFE = ("crashed", "timed_out")
"""Clips refused for these reasons are not opened again: they would take the report down, too."""

PictureScores = dict[str, Any]
"""A row of ``rows.parquet``."""
Scores = dict[str, dict[str, PictureScores]]
"""By arm, prompt and metric."""
AttentionMaps = tuple[Sample, dict[str, np.ndarray]]
"""A sample with the arrays of `mcpipe.report.gallery.maps`."""


def check_arms(folders: Sequence[Path], arms: Sequence[str]) -> None:
    """Make sure that every arm has its output in every folder.

    Raises:
        FileNotFoundError: one has none.
    """
    for folder, arm in product(folders, arms):
        if not (folder / arm).is_dir():
            known = ", ".join(sorted(path.name for path in folder.glob("*") if path.is_dir())) or "none"
            raise FileNotFoundError(f"report.arms names {arm!r}, but {folder} holds {known}")


def account(folder: Path) -> Account:
    """The report of a stage."""
    return Account.model_validate(read_report(folder))


def read_clips(clips: Path, frames: Path, curation: Sequence[Account], number: int) -> list[ClipTile]:
    """Clips that became samples, then rejected ones of every reason; at most half of ``number`` are kept ones."""
    fates = examples(curation, number - number // 2)
    rejected = {rejection.key for stage in curation for rejection in stage.rejections}
    kept: list[ClipTile] = []
    lost: dict[str, ClipTile] = {}
    for packed in read_packed(frames):
        if packed.key in fates:
            clip = FramePair.from_record(packed.record())
            lost[packed.key] = clip_tile(clip.clip, clip.middle, fates[packed.key])
        elif packed.key not in rejected and len(kept) < number - number // 2:
            clip = FramePair.from_record(packed.record())
            kept.append(clip_tile(clip.clip, clip.middle, None))
    unseen = {key: fate for key, fate in fates.items() if key not in lost}
    lost |= refused_at_once(clips, unseen)
    return kept + [lost[key] for key in fates]


def refused_at_once(clips: Path, fates: dict[str, Fate]) -> dict[str, ClipTile]:
    """Clips of which no frames were stored: their first image, where one can be decoded."""
    files = {clip.key: clip for clip in (ClipFile(clips, name) for name in file_names(clips))} if fates else {}
    tiles = {}
    for key, fate in fates.items():
        clip = files.get(key)
        picture = None if clip is None or fate.reason in UNSAFE else first_frame(clip.file)
        tiles[key] = clip_tile(key if clip is None else clip.title, picture, fate)
    return tiles


def read_samples(samples: Path, number: int) -> list[Sample]:
    """The first training samples."""
    return list(islice(read_shards(samples, Sample), number))


def read_curves(model: Path) -> Curves:
    """The curves that a training stage logged with DVCLive, a TSV file per quantity, and the usage of its experts."""
    folder = model / LIVE
    plots = []
    for file in sorted(folder.rglob("*.tsv")):
        name = file.relative_to(folder).with_suffix("").as_posix()
        with file.open(encoding="utf-8", newline="") as lines:
            table = list(csv.DictReader(lines, delimiter="\t"))
        if len(table) > 1:
            values = [float(line[file.stem]) for line in table]
            plots.append((name, curve_plot(name, [float(line["step"]) for line in table], values)))
    usage: Any = account(model).facts
    for name in USAGE:
        usage = usage.get(name, {})
    lines = usage_lines(TypeAdapter(dict[str, list[float] | dict[str, list[float]]]).validate_python(usage))
    return Curves(model.name, plots, usage_plot(model.name, lines) if lines else None)


def usage_lines(layers: Mapping[str, list[float] | dict[str, list[float]]]) -> dict[str, list[float]]:
    """Shares per expert by layer, a line per kind of token where a layer sees several kinds."""
    lines = {}
    for layer, shares_by_kind in layers.items():
        kinds = shares_by_kind if isinstance(shares_by_kind, dict) else {"": shares_by_kind}
        lines |= {f"{layer}: {kind}" if kind else layer: shares for kind, shares in kinds.items()}
    return lines


def read_maps(model: Path, samples: Path, number: int) -> list[AttentionMaps]:
    """The attention maps that a training stage left, if it left any, with the samples that they belong to."""
    files = {file.stem: file for file in sorted((model / "attention").glob("*.safetensors"))[:number]}
    return [
        (sample, load_file(files[sample.key]))
        for sample in (read_shards(samples, Sample) if files else ())
        if sample.key in files
    ]


def read_others(results: Path, arms: Sequence[ArmScores]) -> dict[str, list[ArmScores]]:
    """Scores of other systems, by suite; those that are not comparable with the arms are left out."""
    names = {arm.name for arm in arms}
    folders = [file.parent for file in sorted(results.glob("*/metrics.json")) if file.parent.name not in names]
    # DVC evaluates all arms on one footing; the first stands for them.
    kept, left_out = comparable([*arms[:1], *map(read_scores, folders)])
    for line in left_out:
        logger.warning(line)
    others: dict[str, list[ArmScores]] = {}
    for scores in kept:
        if scores.name not in names:
            others.setdefault(scores.suite, []).append(scores)
    return others


def read_ablation(folder: Path) -> Ablation | None:
    """Results of `make ablation`, if it has run.

    Raises:
        ValueError: the file is damaged or of another version.
    """
    file = folder / "ablation.json"
    if not file.is_file():
        return None
    try:
        return Ablation.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ValueError(f"{file} is not as `make ablation` writes it: {error.errors()[0]['msg']}") from error


def read_rows(results: Path) -> dict[str, PictureScores]:
    """The scores of every prompt of an arm, by its key; the first image's where there are several."""
    rows: dict[str, PictureScores] = {}
    for line in pq.read_table(results / "rows.parquet").to_pylist():
        rows.setdefault(line["key"], line)
    return rows


def read_answers(pairs: Path, images: Path, scores: Scores, params: ReportParams) -> list[PromptRow]:
    """The first prompts of the benchmark with the images of all arms."""
    prompts = list(islice(read_shards(pairs / "bench", PairPrompt), params.num_prompts))
    prompt_keys = {prompt.key for prompt in prompts}
    references = {face.key: face.reference for face in read_shards(pairs / "faces", PoolFace)}
    pictures = read_images(images, params.arms, prompt_keys)
    controls = read_controls(images / params.arms[-1] / CONTROLS, prompt_keys)
    return [
        row(
            prompt,
            references,
            pictures[prompt.key],
            {arm: scores[arm][prompt.key] for arm in params.arms},
            controls[prompt.key],
            params.picture_px,
        )
        for prompt in prompts
    ]


def read_images(images: Path, arms: Sequence[str], keys: Set[str]) -> dict[str, dict[str, np.ndarray]]:
    """The arms' images of some prompts, by prompt and arm."""
    pictures: dict[str, dict[str, np.ndarray]] = {key: {} for key in keys}
    for arm in arms:
        for drawn in read_shards(images / arm, GeneratedImage):
            if drawn.key in keys:
                pictures[drawn.key][arm] = drawn.image
    return pictures


def read_overview(pairs: Path, images: Path, arms: Sequence[str], num_prompts: int) -> list[list[np.ndarray]]:
    """A row for each of the first prompts: its references, then the image of every arm."""
    prompts = list(islice(read_shards(pairs / "bench", PairPrompt), num_prompts))
    references = {face.key: face.reference for face in read_shards(pairs / "faces", PoolFace)}
    pictures = read_images(images, arms, {prompt.key for prompt in prompts})
    return [
        [*(references[name] for name in prompt.names), *(pictures[prompt.key][arm] for arm in arms)]
        for prompt in prompts
    ]


def read_extremes(pairs: Path, images: Path, scores: Scores, params: ReportParams) -> dict[str, Extremes]:
    """The images with the highest and the lowest Face-Sim of each arm, out of the whole benchmark."""
    chosen = {arm: extreme_keys(scores[arm]) for arm in params.arms}
    prompts = {prompt.key: prompt for prompt in read_shards(pairs / "bench", PairPrompt)}
    references = {face.key: face.reference for face in read_shards(pairs / "faces", PoolFace)}
    extremes = {}
    for arm, keys in chosen.items():
        pictures = {
            packed.key: GeneratedImage.from_record(packed.record()).image
            for packed in read_packed(images / arm)
            if packed.key in keys
        }
        extremes[arm] = Extremes(
            *(example(prompts[key], references, pictures[key], scores[arm], params.picture_px) for key in keys)
        )
    return extremes


def read_controls(folder: Path, keys: Set[str]) -> dict[str, dict[ControlKind, np.ndarray]]:
    """The images of an arm's controls for some prompts, by prompt and control."""
    pictures: dict[str, dict[ControlKind, np.ndarray]] = {key: {} for key in keys}
    for kind in METRIC_OF:
        for drawn in read_shards(folder / kind, GeneratedImage) if (folder / kind).is_dir() else ():
            if drawn.key in keys:
                pictures[drawn.key][kind] = drawn.image
    return pictures
