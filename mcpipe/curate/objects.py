"""From a row of objects to a training sample: what is refused, the target's square, who is held out."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from mcpipe.core.params import Params, RecordsPerShard, TakenFrom
from mcpipe.core.records import RejectionError
from mcpipe.core.schemas.curation import Sample
from mcpipe.curate.samples import clip_groups
from mcpipe.curate.windows import Window, faces_window, square_window

CLOSEUP_MARGIN = 1.3
"""Side of a close-up of one object in units of its longer side."""
POOLS = {"bench": "things", "rl": "rl_things"}
"""Folder of the references of each set of prompts, in the output of the stage ``prompts``."""
NAME_LENGTH = 40
"""Largest length of a phrase in an object's name, in characters."""

Split = Literal["row", "thing"]
"""What training and benchmark share nothing of: rows (paper), or objects as well."""


class ObjectsParams(Params):
    """Which rows become samples, and which samples are held out."""

    min_score: Annotated[float, Field(ge=0, le=1), TakenFrom("grounding.min_score")]
    """Certainty from which a box counts."""
    max_same_box: float = Field(ge=0, le=1)
    """Largest intersection over union of the boxes of two phrases in the target; beyond it they are one object."""
    max_mask_overlap: float = Field(ge=0, le=1)
    """Largest share of the smaller mask that another object claims as well."""
    min_mask_fill: float = Field(ge=0, le=1)
    """Least share of its box that a mask fills."""
    min_share: float = Field(ge=0, le=1)
    """Least share of the target that an object fills."""
    questions: list[str]
    """Questions about every object in the target, with ``{phrase}`` in place of its phrase; "yes" lets it pass."""
    image_size: Annotated[int, Field(ge=16), TakenFrom("samples.image_size")]
    """Side of the target in pixels."""
    reference_size: Annotated[int, Field(ge=16), TakenFrom("samples.reference_size")]
    """Side of a reference in pixels."""
    num_held_out: int = Field(ge=0)
    """Samples held out for the benchmark."""
    split: Split
    seed: int
    """Seed of the split."""
    thumbnails: int = Field(ge=0)
    """Rows in the report's pictures, at most so many that were kept and of every reason."""
    records_per_shard: RecordsPerShard


def check_texts(prompt: str, phrases: Sequence[str]) -> None:
    """Check the texts of a row.

    Raises:
        RejectionError: ``no_prompt``, ``no_reference``, ``no_phrase`` or ``equal_phrases``.
    """
    if not prompt:
        raise RejectionError("no_prompt", "the row has no prompt")
    if not phrases:
        raise RejectionError("no_reference", "the row has no reference")
    for number, phrase in enumerate(phrases):
        if not phrase:
            raise RejectionError("no_phrase", f"nothing says what reference {number} shows")
    plain = [" ".join(phrase.casefold().split()) for phrase in phrases]
    for number, phrase in enumerate(plain):
        if phrase in plain[:number]:
            raise RejectionError("equal_phrases", f"{phrases[number]!r} is two references, which nothing tells apart")


def best_box(
    boxes: Float[np.ndarray, "N 4"], scores: Float[np.ndarray, " N"], min_score: float
) -> Float[np.ndarray, " 4"] | None:
    """The most certain box, if its certainty reaches ``min_score``."""
    best = int(scores.argmax()) if len(scores) else -1
    return boxes[best] if best >= 0 and scores[best] >= min_score else None


def check_boxes(boxes: Float[np.ndarray, "N 4"], phrases: Sequence[str], params: ObjectsParams) -> None:
    """Check that every phrase has an object of its own in the target.

    Raises:
        RejectionError: ``same_object``.
    """
    for first in range(len(boxes)):
        for second in range(first):
            overlap = box_overlap(boxes[first], boxes[second])
            if overlap > params.max_same_box:
                names = f"{phrases[second]!r} and {phrases[first]!r}"
                raise RejectionError("same_object", f"{names} are one box (overlap {overlap:.2f})")


def box_overlap(a: Float[np.ndarray, " 4"], b: Float[np.ndarray, " 4"]) -> float:
    """Intersection over union of two boxes, in [0, 1]."""
    shared = float(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod())
    return shared / max(float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - shared, 1e-9)


def check_object_masks(scores: Mapping[str, float], masks: Bool[np.ndarray, "N H W"], params: ObjectsParams) -> None:
    """Check the masks of the objects in the target, by the measurements of `mcpipe.curate.subjects.mask_scores`.

    Raises:
        RejectionError: ``masks_overlap``, ``mask_too_small`` or ``object_too_small``.
    """
    if scores["mask_overlap"] > params.max_mask_overlap:
        raise RejectionError("masks_overlap", f"{scores['mask_overlap']:.2f} of the smaller mask is claimed twice")
    if scores["mask_fill"] < params.min_mask_fill:
        raise RejectionError("mask_too_small", f"fills {scores['mask_fill']:.2f} of its box")
    share = float(masks.mean(axis=(1, 2)).min())
    if share < params.min_share:
        raise RejectionError("object_too_small", f"{share:.3f} of the target")


def object_window(masks: Bool[np.ndarray, "N H W"], boxes: Float[np.ndarray, "N 4"]) -> Window:
    """The largest square inside the target that holds all boxes, or one that reaches over its edges.

    Raises:
        RejectionError: ``no_square_holds_all``.
    """
    window = faces_window(masks, boxes, (min(masks.shape[1:]),) * 2) or square_window(boxes, *masks.shape[1:])
    if window is None:
        raise RejectionError("no_square_holds_all", "the objects stand wider than the picture is high")
    return window


def says_yes(answer: str) -> bool | None:
    """Whether an answer is yes; ``None`` if it is neither yes nor no."""
    words = re.findall(r"[a-z]+", answer.casefold())
    return {"yes": True, "no": False}.get(words[0]) if words else None


def phrases_of(sample: Sample) -> list[str]:
    """The phrases of a sample's objects, from its provenance.

    Raises:
        RecordError: the sample is not one of objects.
    """
    phrases = sample.provenance.get("phrases")
    if not isinstance(phrases, list):
        raise sample.error(sample.key, f"'provenance.phrases' should be a list, found {phrases!r}")
    return [str(phrase) for phrase in phrases]


def thing_name(reference: bytes, phrase: str) -> str:
    """The name of an object, equal for equal files with equal phrases: its phrase and a digest."""
    spelled = re.sub(r"[^a-z0-9]+", "_", phrase.casefold()).strip("_")[:NAME_LENGTH] or "thing"
    return f"{spelled}-{sha256(reference + phrase.encode()).hexdigest()[:12]}"


def held_out_rows(names: Mapping[str, Sequence[str]], number: int, split: Split, seed: int) -> set[str]:
    """The keys of ``number`` rows drawn for the benchmark; ``names`` are the objects of every row.

    With the split ``thing``, rows that share an object stay together, and there may be fewer: rows that would leave
    nothing to train on stay in training.

    Raises:
        ValueError: there are no more rows than are to be held out.
    """
    if number and number >= len(names):
        raise ValueError(f"{number} rows are to be held out, but {len(names)} are usable; lower objects.num_held_out")
    keys = list(names)
    groups = clip_groups(names).tolist() if split == "thing" else range(len(keys))
    members: dict[int, list[str]] = {}
    for key, group in zip(keys, groups, strict=True):
        members.setdefault(group, []).append(key)
    chosen: set[str] = set()
    for group in sorted(members.values(), key=lambda group: sha256(f"{seed}\n{group[0]}".encode()).digest()):
        if len(chosen) + len(group) <= number:
            chosen.update(group)
    return chosen
