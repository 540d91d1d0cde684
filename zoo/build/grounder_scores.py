"""Figures of the grounder on scenes of things: phrases of one thing, of several and of none."""

from collections.abc import Iterator

import numpy as np

from mcpipe.core.progress import track
from mcpipe.models.protocols import Grounder, Picture
from mcpipe.world.scene import mask_box
from zoo.build.crops import cut_out
from zoo.build.phrases import Phrase, absent_phrase, phrase_of
from zoo.build.things import ThingPictures

ONE_KINDS = ("name", "colour", "pattern")
"""Kinds of phrases of one thing, in turn."""

LOCATED = 0.5
"""Overlap from which a thing counts as located."""


def score(grounder: Grounder, pictures: ThingPictures) -> dict[str, float]:
    """Overlaps and shares over all scenes (`zoo.build.grounder.CARD`)."""
    overlaps, absent, several, alone = [], [], [], []
    for index, scene in enumerate(track(pictures.scenes, len(pictures.scenes), "grounding")):
        picture, rng = np.ascontiguousarray(pictures.square(index)), np.random.default_rng([7, index])
        things, boxes = scene["attributes"], scene["boxes"]
        for seat, words in enumerate(things):
            phrase = phrase_of(words, ONE_KINDS[(index + seat) % len(ONE_KINDS)])
            overlaps.append(first_overlap(grounder, picture, phrase, np.array(boxes[seat])))
            reference, mask = _reference(pictures, scene["first_reference"] + seat, index % 2 == 0)
            true = mask_box(mask)
            assert true is not None
            alone.append(first_overlap(grounder, reference, phrase, true))
        nothing = absent_phrase(things, things[0], "colour", rng)
        absent.append(len(grounder.boxes(picture, nothing.text)[0]) == 0)
        for phrase in _phrases_of_several(things):
            answers, _ = grounder.boxes(picture, phrase.text)
            several += [
                any(overlap(box, np.array(boxes[seat])) >= LOCATED for box in answers)
                for seat in phrase.matches(things)
            ]
    return {
        "mean_iou": float(np.mean(overlaps)),
        "located": float(np.mean([share >= LOCATED for share in overlaps])),
        "reference_iou": float(np.mean(alone)),
        "absent_refused": float(np.mean(absent)),
        "several_found": float(np.mean(several)) if several else float("nan"),
    }


def first_overlap(grounder: Grounder, picture: Picture, phrase: Phrase, true: np.ndarray) -> float:
    """Overlap of the first box of an answer with the true one, 0 without a box."""
    answers, _ = grounder.boxes(picture, phrase.text)
    return overlap(answers[0], true) if len(answers) else 0.0


def _reference(pictures: ThingPictures, number: int, plain: bool) -> tuple[Picture, np.ndarray]:
    """A reference on white or where it was taken, and its mask."""
    four = np.asarray(pictures.references[number])
    return (cut_out(four) if plain else np.ascontiguousarray(four[..., :3])), four[..., 3] > 127


def _phrases_of_several(things: list[dict[str, str]]) -> Iterator[Phrase]:
    """At most one phrase that describes two or more of the things."""
    for kind in ("any", "any_pattern"):
        for words in things:
            phrase = phrase_of(words, kind)
            if phrase.demands and len(phrase.matches(things)) > 1:
                yield phrase
                return


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes (4,)."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    both = float(np.prod(np.clip(high - low, 0, None)))
    areas = [float(np.prod(box[2:] - box[:2])) for box in (first, second)]
    return both / max(sum(areas) - both, 1e-9)
