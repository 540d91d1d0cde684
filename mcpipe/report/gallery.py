"""Images and texts of the report page, from stored records."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image
from pydantic import Field

from mcpipe.bench.controls import METRIC_OF, ControlKind
from mcpipe.bench.intervals import IntervalParams
from mcpipe.core.params import Params
from mcpipe.core.schemas.benchmark import PairPrompt
from mcpipe.core.schemas.curation import Sample
from mcpipe.report.content import Account, ClipTile, Example, Figure, Look, Maps, PromptRow, Sheet
from mcpipe.report.images import contact_sheet, data_uri, heat_overlay, mask_overlay
from mcpipe.report.page import in_words

THUMBNAIL_PX = 200
"""Longer side of a clip's frame on the page."""


class ReportParams(Params):
    """Numbers of examples on the page."""

    arms: list[str] = Field(min_length=1)
    """Models to compare, in the order in which they build on each other."""
    num_clips: int = Field(ge=0)
    """Clips in the overview, half of them rejected ones, and more if there are more reasons than that."""
    num_samples: int = Field(ge=0)
    """Training samples."""
    num_maps: int = Field(ge=0)
    """Images with attention maps."""
    num_prompts: int = Field(ge=0)
    """Benchmark prompts with every arm's image."""
    picture_px: int = Field(ge=32)
    """Longest side of any image on the page; larger ones are made smaller."""
    interval: IntervalParams
    """Interval of the change from one arm to the next."""


@dataclass(frozen=True)
class Fate:
    """What became of a clip that was rejected."""

    stage: str
    reason: str
    alike: int
    """How many were rejected there for that reason."""


def examples(reports: Iterable[Account], number: int) -> dict[str, Fate]:
    """Rejected clips to show, by key: one for every reason of every stage, then others in turn while there is room."""
    turns = []
    for place, report in enumerate(reports):
        seen: Counter[str] = Counter()
        for lost in report.rejections:
            fate = Fate(report.stage, lost.reason, report.dropped[lost.reason])
            turns.append((seen[lost.reason], place, lost.reason, lost.key, fate))
            seen[lost.reason] += 1
    turns.sort(key=lambda turn: turn[:4])
    num_reasons = sum(turn[0] == 0 for turn in turns)
    chosen = turns[: max(num_reasons, number)]
    chosen.sort(key=lambda turn: (turn[1], turn[2], turn[0]))
    return {key: fate for _, _, _, key, fate in chosen}


def clip_tile(name: str, picture: np.ndarray | None, fate: Fate | None) -> ClipTile:
    """A clip's frame, if one could be decoded, and what became of it."""
    figure = None if picture is None else Figure(data_uri(picture, THUMBNAIL_PX), f"a frame of {name}")
    return ClipTile(figure, name, fate and fate.reason, fate and fate.stage, fate.alike if fate else 0)


def sheet(sample: Sample, picture_px: int) -> Sheet:
    """A training sample with its masks painted."""
    bodies = sample.masks if sample.body_masks is None else sample.body_masks
    overlay = mask_overlay(sample.target, bodies, sample.masks)
    who = sample.names
    return Sheet(
        caption=sample.caption,
        references=[
            Figure(data_uri(face, picture_px), f"reference face {i}") for i, face in enumerate(sample.references, 1)
        ],
        target=Figure(data_uri(sample.target, picture_px), "target picture"),
        overlay=Figure(data_uri(overlay, picture_px), f"masks of {len(who)} people over the target in grey"),
        note=f"{sample.clip}: {', '.join(who)}; {sample.split} split",
    )


def row(  # noqa: PLR0913  one argument per source
    prompt: PairPrompt,
    references: Mapping[str, np.ndarray],
    pictures: Mapping[str, np.ndarray],
    scores: Mapping[str, Mapping[str, float]],
    controls: Mapping[ControlKind, np.ndarray],
    picture_px: int,
) -> PromptRow:
    """A benchmark prompt with every arm's image and its scores; ``controls`` are of the last arm of ``scores``."""
    last = [*scores.values()][-1]
    return PromptRow(
        prompt=prompt.prompt,
        references=reference_figures(prompt, references, picture_px),
        cells={
            arm: (Figure(data_uri(picture, picture_px), f"picture by {arm}"), in_short(scores[arm]))
            for arm, picture in pictures.items()
        },
        controls={
            kind: (Figure(data_uri(picture, picture_px), in_words(kind)), f"Face-Sim {last[METRIC_OF[kind]]:.2f}")
            for kind, picture in controls.items()
            if last.get(METRIC_OF[kind]) is not None
        },
    )


def reference_figures(prompt: PairPrompt, references: Mapping[str, np.ndarray], picture_px: int) -> list[Figure]:
    """The faces that a prompt names, in its order."""
    return [Figure(data_uri(references[face], picture_px), f"reference face {face}") for face in prompt.names]


def extreme_keys(scores: Mapping[str, Mapping[str, float]]) -> tuple[str, str]:
    """The prompts whose images have the highest and the lowest Face-Sim; of equal ones the first by name."""
    ordered = sorted(scores)
    return max(ordered, key=lambda key: scores[key]["face_sim"]), min(ordered, key=lambda key: scores[key]["face_sim"])


def example(
    prompt: PairPrompt,
    references: Mapping[str, np.ndarray],
    picture: np.ndarray,
    scores: Mapping[str, Mapping[str, float]],
    picture_px: int,
) -> Example:
    """An image by an arm, whose ``scores`` are by prompt, with its references and its prompt."""
    face_sim = scores[prompt.key]["face_sim"]
    return Example(
        picture=Figure(data_uri(picture, picture_px), f"picture with a Face-Sim of {face_sim:.2f}"),
        references=reference_figures(prompt, references, picture_px),
        prompt=prompt.prompt,
        face_sim=face_sim,
        note=in_short(scores[prompt.key]),
        num_equal=sum(score["face_sim"] == face_sim for score in scores.values()),
    )


def in_short(score: Mapping[str, float]) -> str:
    """An image's scores in a few words."""
    num_faces = int(score["num_faces"])
    faces = "no face" if not num_faces else "1 face" if num_faces == 1 else f"{num_faces} faces"
    return f"{faces}, Face-Sim {score['face_sim']:.2f}, CLIP-T {score['clip_t']:.2f}"


def map_sheet(sample: Sample, arrays: Mapping[str, np.ndarray]) -> Image.Image:
    """The maps as one image: a row per reference, with the face and its maps before and after."""
    rows = [
        [face, *(heat_overlay(sample.target, arrays[when][i], i) for when in ("before", "after"))]
        for i, face in enumerate(sample.references)
    ]
    return contact_sheet(rows, THUMBNAIL_PX, THUMBNAIL_PX // 20)


def maps(sample: Sample, arrays: Mapping[str, np.ndarray], picture_px: int) -> Maps:
    """Attention of references over a sample's target: ``before`` and ``after`` training, ``masks``, all (N, h, w)."""
    looks = []
    for i, face in enumerate(sample.references):
        views = []
        for when in ("before", "after"):
            heat, mask = arrays[when][i], arrays["masks"][i]
            inside = float(heat[mask].sum() / max(float(heat.sum()), 1e-12))
            picture = data_uri(heat_overlay(sample.target, heat, i), picture_px)
            views.append(
                (Figure(picture, f"attention of reference {i + 1} {when} training"), f"{inside:.0%} on the face")
            )
        looks.append(Look(Figure(data_uri(face, picture_px), f"reference face {i + 1}"), *views))
    return Maps(looks)
