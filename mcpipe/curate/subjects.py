"""Selects the detections that are people of an image, and cleans their masks.

"Two individuals" (paper, appendix C) is read strictly: exactly the required number of people may be visible. A
passer-by in the background counts, because the caption would be wrong about them, a model would learn their pixels as
background, and it would generate their face without a reference. Only a detection with too few joints is not a person.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import Field
from scipy import ndimage

from mcpipe.core.params import Params, PeopleCount, RecordsPerShard, people_numbers
from mcpipe.core.records import RejectionError

OKS_SIGMAS = np.array(
    [0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
     0.089]
)  # fmt: skip
"""Standard deviation of COCO's annotations of each joint, in units of the square root of a person's area."""


FACE_JOINTS = slice(0, 5)
"""Indices of nose, eyes and ears among the joints."""
ENOUGH_OF_A_FACE = 3
"""Minimum number of these joints for a person in a close-up without other joints."""


class SubjectsParams(Params):
    """Criteria of a subject."""

    num_people: PeopleCount
    """Exact number of people in both frames (paper: 2), or a range; both frames have the same number."""
    min_score: float = Field(ge=0, le=1)
    """Minimum score of a detection."""
    min_keypoint_score: float = Field(ge=0, le=1)
    """Minimum score of a visible joint."""
    min_keypoints: int = Field(ge=0, le=17)
    """Minimum number of visible joints of a person, except for a face that fills the image; hands alone have no
    joints."""
    min_same_pose: float = Field(ge=0, le=1)
    """Minimum similarity of joints (OKS) of two detections of one person."""
    max_containment: float = Field(ge=0, le=1)
    """Part of the smaller of two boxes inside the larger from which half of that similarity is enough."""
    min_height: float = Field(ge=0, le=1)
    """Minimum height of a person, as a fraction of the frame's height."""
    min_mask_fill: float = Field(ge=0, le=1)
    """Minimum part of a person's box that the mask fills."""
    max_mask_overlap: float = Field(ge=0, le=1)
    """Maximum part of the smaller of two masks that also belongs to the other."""
    records_per_shard: RecordsPerShard


def people_in(
    boxes: Float[np.ndarray, "P 4"], keypoints: Float[np.ndarray, "P 17 3"], params: SubjectsParams
) -> Int[np.ndarray, " N"]:
    """Indices of the people, from left to right.

    Detections are sorted by descending score; of two that show the same person, the earlier stays.
    """
    seen = keypoints[:, :, 2] >= params.min_keypoint_score
    somebody = (seen.sum(axis=1) >= params.min_keypoints) | (seen[:, FACE_JOINTS].sum(axis=1) >= ENOUGH_OF_A_FACE)
    people: list[int] = []
    for i in np.flatnonzero(somebody):
        if not any(one_person((boxes[i], keypoints[i]), (boxes[j], keypoints[j]), params) for j in people):
            people.append(int(i))
    return np.array(sorted(people, key=lambda i: float(boxes[i, 0] + boxes[i, 2])), dtype=int)


def one_person(
    a: tuple[Float[np.ndarray, " 4"], Float[np.ndarray, "17 3"]],
    b: tuple[Float[np.ndarray, " 4"], Float[np.ndarray, "17 3"]],
    params: SubjectsParams,
) -> bool:
    """Whether two detections, each a box and joints, show one person.

    People who embrace, or a child in front of an adult, overlap as much as two detections of one person do, but their
    joints lie apart. Detections without a common visible joint are compared by their boxes alone.
    """
    contained = containment(a[0], b[0]) > params.max_containment
    likeness = pose_likeness(a, b, params.min_keypoint_score)
    if likeness is None:
        return contained
    return likeness >= (params.min_same_pose / 2 if contained else params.min_same_pose)


def pose_likeness(
    a: tuple[Float[np.ndarray, " 4"], Float[np.ndarray, "17 3"]],
    b: tuple[Float[np.ndarray, " 4"], Float[np.ndarray, "17 3"]],
    min_score: float,
) -> float | None:
    """Object keypoint similarity in [0, 1] over the joints visible in both, ``None`` if there are none.

    ``mean exp(-d_k^2 / (2 s^2 (2 sigma_k)^2))`` with ``s^2`` the area of the smaller box (COCO).
    """
    both = (a[1][:, 2] >= min_score) & (b[1][:, 2] >= min_score)
    if not both.any():
        return None
    area = min(float((box[2:] - box[:2]).prod()) for box in (a[0], b[0]))
    distance = ((a[1][both, :2] - b[1][both, :2]) ** 2).sum(axis=1)
    return float(np.exp(-distance / (2 * max(area, 1.0) * (2 * OKS_SIGMAS[both]) ** 2)).mean())


def containment(a: Float[np.ndarray, " 4"], b: Float[np.ndarray, " 4"]) -> float:
    """Part of the smaller box that lies in the other, in [0, 1]."""
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    smaller = min(float((a[2:] - a[:2]).prod()), float((b[2:] - b[:2]).prod()))
    return float(shared) / max(smaller, 1e-9)


def check_people(boxes: Float[np.ndarray, "N 4"], height_px: int, params: SubjectsParams) -> None:
    """Check the number and the heights of the people in an image by their boxes.

    Raises:
        RejectionError: ``too_few_people``, ``too_many_people`` or ``person_too_small``.

    """
    allowed = people_numbers(params.num_people)
    if len(boxes) not in allowed:
        reason = "too_few_people" if len(boxes) < allowed.start else "too_many_people"
        raise RejectionError(reason, f"{len(boxes)} people")
    tallness = float((boxes[:, 3] - boxes[:, 1]).min()) / height_px
    if tallness < params.min_height:
        raise RejectionError("person_too_small", f"{tallness:.2f} of the frame height")


def check_same_number(initial: int, middle: int) -> None:
    """Check that both frames show the same number of people.

    Raises:
        RejectionError: ``number_changes``.

    """
    if initial != middle:
        raise RejectionError("number_changes", f"{initial} people in the initial frame, {middle} in the middle one")


def clean_masks(masks: Bool[np.ndarray, "N H W"]) -> Bool[np.ndarray, "N H W"]:
    """Disjoint masks of one piece without holes.

    A pixel in several masks is removed from all, because its owner is unknown.
    """
    contested = masks.sum(axis=0) > 1
    cleaned = np.stack([largest_component(mask & ~contested) for mask in masks])
    for i, mask in enumerate(cleaned):
        others = np.delete(cleaned, i, axis=0).any(axis=0)
        cleaned[i] = np.asarray(ndimage.binary_fill_holes(mask), bool) & ~others & ~contested
    return cleaned


def mask_scores(
    masks: Bool[np.ndarray, "N H W"], cleaned: Bool[np.ndarray, "N H W"], boxes: Float[np.ndarray, "N 4"]
) -> dict[str, float]:
    """Measurements for `check_masks`: the least share of a box in its mask, the largest overlap of masks."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    overlaps = [
        float((masks[i] & masks[j]).sum() / max(min(masks[i].sum(), masks[j].sum()), 1))
        for i in range(len(masks))
        for j in range(i)
    ]
    return {
        "mask_fill": float((cleaned.sum(axis=(1, 2)) / np.maximum(areas, 1)).min()),
        "mask_overlap": max(overlaps, default=0.0),
    }


def check_masks(scores: dict[str, float], params: SubjectsParams) -> None:
    """Check masks by the measurements of `mask_scores`.

    Raises:
        RejectionError: ``masks_overlap`` or ``mask_too_small``.

    """
    if scores["mask_overlap"] > params.max_mask_overlap:
        raise RejectionError("masks_overlap", f"{scores['mask_overlap']:.2f} of the smaller mask is claimed twice")
    if scores["mask_fill"] < params.min_mask_fill:
        raise RejectionError("mask_too_small", f"fills {scores['mask_fill']:.2f} of its box")


def largest_component(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The largest connected piece of a mask (paper, appendix C)."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if len(statistics) < 2:
        return np.zeros_like(mask)
    return labels == 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
