"""The benchmark's scores of one image of objects (paper, section 5.1).

Choices where the paper is silent or wrong:

1. Every object is located by its own phrase; one that is not counts 0 and stays in the denominator.
2. Located objects are cut out along their mask, on white, as their references are.
3. DINO-I uses DINO, the self-supervised encoder; the paper cites a detector of the same name. The reward of stage 3
   uses DINOv2.
4. HPS is v2.1, which the published numbers fit.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mcpipe.bench.control_scores import scores_of_controls
from mcpipe.bench.controls import ControlKind
from mcpipe.bench.copying import own_minus_cross, same_and_cross, swapped
from mcpipe.bench.intervals import Interval, IntervalParams, unit_interval
from mcpipe.bench.metrics import Score, mean_of, mean_or_zero, preference
from mcpipe.bench.object_columns import AVERAGED
from mcpipe.core.schemas.benchmark import PairPrompt, PoolThing, RealTarget
from mcpipe.core.shards import read_shards
from mcpipe.models.protocols import ImageEncoder, ImageTextEncoder, Picture, PreferenceScorer

Locate = Callable[[Picture, str], Picture | None]
"""The object that a phrase describes, cut out like a reference; ``None`` if it is not located."""
METRIC_OF: dict[ControlKind, str] = {
    "no_references": "dino_i_floor",
    "other_people": "dino_i_others",
    "swapped": "dino_i_swapped",
}
"""The name of each control's DINO-I; ``other_people`` are other objects here."""


@dataclass(frozen=True)
class ObjectScorers:
    """The models that score an image."""

    locate: Locate
    clip: ImageTextEncoder
    dino: ImageEncoder
    hps: PreferenceScorer
    pick_score: PreferenceScorer | None = None


@dataclass(frozen=True)
class ThingReference:
    """Phrase and features of an object of a prompt; embeddings have unit length."""

    phrase: str
    clip: Float[np.ndarray, " C"]
    dino: Float[np.ndarray, " V"]


@dataclass(frozen=True)
class ObjectScore(Score):
    """Scores of one image of objects; those of people are ``None``."""

    dino_i_others: float | None = None
    """``dino_i`` of the image drawn from other objects' references, same text and noise."""
    dino_i_floor: float | None = None
    """``dino_i`` of the image drawn without references, same text and noise."""
    dino_i_swapped: float | None = None
    """``dino_i`` of the image drawn from the references in another order, same text and noise."""
    object_lift: float | None = None
    """``dino_i`` less ``dino_i_others``: what the references add to the text."""


def thing_references(things: Iterable[PoolThing], scorers: ObjectScorers) -> dict[str, ThingReference]:
    """Features of every object, by its name."""
    return {
        thing.key: ThingReference(
            thing.phrase, scorers.clip.pictures([thing.reference])[0], scorers.dino.pictures([thing.reference])[0]
        )
        for thing in things
    }


def score_objects(
    picture: Picture, prompt: str, wanted: Sequence[ThingReference], scorers: ObjectScorers
) -> ObjectScore:
    """Scores of an image for its prompt and for the objects that it should show; their order does not matter."""
    cutouts = located(picture, wanted, scorers.locate)
    of_image, *of_crops = scorers.clip.pictures([picture, *cutouts.values()])
    similarity = dino_similarity(wanted, cutouts, scorers.dino)
    places = list(cutouts)
    pairs = {reference: column for column, reference in enumerate(places)}
    same, cross = same_and_cross(similarity, pairs)
    paper: dict[str, Any] = {
        "clip_t": float(of_image @ scorers.clip.texts([prompt])[0]),
        "dino_i": mean_or_zero(same, len(wanted)),
        "clip_i": mean_or_zero([wanted[i].clip @ crop for i, crop in zip(places, of_crops, strict=True)], len(wanted)),
        "hps": float(scorers.hps.scores([picture], [prompt])[0]),
    }
    return ObjectScore(
        **paper,
        overall=mean_of([paper[metric] for metric in AVERAGED]),
        pick_score=preference(scorers.pick_score, picture, prompt),
        detection_rate=len(cutouts) / len(wanted),
        swap_rate=mean_of(swapped(similarity, pairs)),
        own_minus_cross=own_minus_cross(same, cross),
        same=same,
        cross=cross,
    )


def located(picture: Picture, wanted: Sequence[ThingReference], locate: Locate) -> dict[int, Picture]:
    """The cut-out of every object that is located, by its place among those wanted."""
    cuts = {place: locate(picture, thing.phrase) for place, thing in enumerate(wanted)}
    return {place: cut for place, cut in cuts.items() if cut is not None}


def dino_similarity(
    wanted: Sequence[ThingReference], cutouts: Mapping[int, Picture], dino: ImageEncoder
) -> Float[np.ndarray, "R F"]:
    """Cosines of all references and all located objects."""
    if not cutouts:
        return np.zeros((len(wanted), 0))
    return np.stack([thing.dino for thing in wanted]) @ dino.pictures(list(cutouts.values())).T


def dino_i(picture: Picture, wanted: Sequence[ThingReference], scorers: ObjectScorers) -> float:
    """DINO-I of an image alone."""
    cutouts = located(picture, wanted, scorers.locate)
    similarity = dino_similarity(wanted, cutouts, scorers.dino)
    return mean_or_zero([similarity[i, column] for column, i in enumerate(cutouts)], len(wanted))


def object_controls(
    prompts: Sequence[PairPrompt], controls: Path, things: Mapping[str, ThingReference], scorers: ObjectScorers
) -> dict[str, dict[str, float]]:
    """DINO-I of every control's images by prompt and metric, compared with the objects that the prompt names.

    Raises:
        ValueError: a control lacks a prompt's image.
    """

    def of_image(prompt: PairPrompt, image: np.ndarray) -> float:
        return dino_i(image, [things[name] for name in prompt.names], scorers)

    return scores_of_controls(prompts, controls, METRIC_OF, of_image)


def beside_controls(score: ObjectScore, controls: Mapping[str, float]) -> ObjectScore:
    """The score of an image with the scores of its controls, and the gain over other objects' references."""
    beside: dict[str, Any] = dict(controls)
    if score.dino_i is not None and "dino_i_others" in controls:
        beside["object_lift"] = score.dino_i - controls["dino_i_others"]
    return replace(score, **beside)


def object_ceiling(
    targets: Path, phrases: Mapping[str, str], scorers: ObjectScorers, params: IntervalParams
) -> dict[str, Interval]:
    """Mean DINO-I of real targets and their own references; empty with fewer than two targets or objects.

    ``phrases`` holds the phrase of every object by its name; targets of others are left out.
    """
    values, units = [], []
    for target in read_shards(targets, RealTarget) if targets.is_dir() else ():
        if all(name in phrases for name in target.names):
            things = [
                PoolThing(key=name, phrase=phrases[name], reference=reference)
                for name, reference in zip(target.names, target.references, strict=True)
            ]
            values.append(dino_i(target.image, [*thing_references(things, scorers).values()], scorers))
            units.append(target.names)
    if len(values) < 2 or len({name for names in units for name in names}) < 2:
        return {}
    return {"dino_i_ceiling": unit_interval(values, units, params)}
