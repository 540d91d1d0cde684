"""Rules of PSRBench's subset Position: whether the boxes of two subjects stand as the prompt says.

With the offset (dx, dy) of the second subject's centre from the first one's and the overlap of both boxes as IoU, a
relation that holds scores 1 below an IoU of 0.1 and 0.1 / IoU above it; one that does not hold scores 0:

    left   dx > 0 and |dx| > |dy|        right   dx < 0 and |dx| > |dy|
    above  dy > 0                        below   dy < 0
    near   1 if |dx| < 150 or |dy| < 150, else 150 / max(|dx|, |dy|), in pixels of the image

The published scripts never reach the last rule, because its phrases are missing from their list, and they drop prompts
without a listed phrase. Here `relation_in` reads all phrases, and its ``None`` is for the caller to count.
"""

import re
from typing import Literal

import numpy as np
from jaxtyping import Float

Relation = Literal["left", "right", "above", "below", "near"]
Box = Float[np.ndarray, " 4"]

MAX_IOU = 0.1
"""Overlap from which a relation that holds no longer scores 1."""
NEAR_PX = 150
"""Distance along either axis below which two subjects are next to each other, whatever the image's size."""
LISTED: dict[str, Relation] = {
    "to the left of": "left",
    "to the right of": "right",
    "on the left of": "left",
    "on the right of": "right",
    "above": "above",
    "on top of": "above",
    "below": "below",
    "under": "below",
}
"""The phrases that the published scripts look for, in their order."""
PHRASES: dict[str, Relation] = {**LISTED, "next to": "near", "on side of": "near", "near": "near"}
"""All phrases for which the published scripts have a rule."""


def relation_in(prompt: str) -> Relation | None:
    """The relation by the first phrase of `PHRASES` in a prompt, as whole words; ``None`` without any."""
    words = "|".join(re.escape(phrase) for phrase in sorted(PHRASES, key=len, reverse=True))
    match = re.search(rf"\b(?:{words})\b", prompt.lower())
    return None if match is None else PHRASES[match[0]]


def listed_relation_in(prompt: str) -> Relation | None:
    """The relation that the published scripts read: the first listed phrase that is part of the text, or ``None``."""
    return next((relation for phrase, relation in LISTED.items() if phrase in prompt), None)


def position_score(relation: Relation, first: Box, second: Box) -> float:
    """How far the first box stands to the second one in a relation, in [0, 1].

    Boxes are ``x0 y0 x1 y1`` in pixels; the direction is that of the first one, seen from the second one.
    """
    dx, dy = (float(value) for value in _centre(second) - _centre(first))
    if relation == "near":
        return 1.0 if min(abs(dx), abs(dy)) < NEAR_PX else NEAR_PX / max(abs(dx), abs(dy))
    holds = {
        "left": dx > abs(dy),
        "right": -dx > abs(dy),
        "above": dy > 0,
        "below": dy < 0,
    }[relation]
    if not holds:
        return 0.0
    overlap = iou(first, second)
    return 1.0 if overlap < MAX_IOU else MAX_IOU / overlap


def iou(first: Box, second: Box) -> float:
    """The intersection of two boxes over their union, in [0, 1]; 0 for boxes without area."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    union = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])) - shared
    return shared / union if union > 0 else 0.0


def _centre(box: Box) -> Float[np.ndarray, " 2"]:
    return (box[:2] + box[2:]) / 2
