"""Which detections are the people of a picture, and which pixels are theirs."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import Field
from scipy import ndimage

from mcpipe.params import Params


class SubjectsParams(Params):
    """Who counts as a subject."""

    num_people: int = Field(ge=1)
    """Exactly so many people in both frames (paper: 2)."""
    min_score: float = Field(ge=0, le=1)
    """Certainty of a detection."""
    min_keypoint_score: float = Field(ge=0, le=1)
    """Certainty from which a joint is seen."""
    min_keypoints: int = Field(ge=0, le=17)
    """Joints a person must show; hands alone show none."""
    max_overlap: float = Field(ge=0, le=1)
    """Part of the smaller of two boxes that may lie in the larger; beyond, both are one person."""
    min_height: float = Field(ge=0, le=1)
    """Height of a person, as a fraction of the frame's."""
    min_mask_fill: float = Field(ge=0, le=1)
    """Part of a person's box that the mask must fill."""
    records_per_shard: int = Field(ge=1)


def subjects(
    boxes: Float[np.ndarray, "P 4"], keypoints: Float[np.ndarray, "P 17 3"], height_px: int, params: SubjectsParams
) -> Int[np.ndarray, " N"] | tuple[str, str]:
    """Indices of the people, from left to right; or why the picture is refused, as a reason and a detail.

    Detections come most certain first; of two that show one person the earlier stays.
    """
    seen = (keypoints[:, :, 2] >= params.min_keypoint_score).sum(axis=1)
    people: list[int] = []
    for i in np.flatnonzero(seen >= params.min_keypoints):
        if all(overlap(boxes[i], boxes[j]) <= params.max_overlap for j in people):
            people.append(int(i))
    if len(people) != params.num_people:
        reason = "too_few_people" if len(people) < params.num_people else "too_many_people"
        return reason, f"{len(people)} people"
    tallness = (boxes[people, 3] - boxes[people, 1]) / height_px
    if tallness.min() < params.min_height:
        return "person_too_small", f"{tallness.min():.2f} of the frame height"
    return np.array(sorted(people, key=lambda i: float(boxes[i, 0] + boxes[i, 2])))


def overlap(a: Float[np.ndarray, " 4"], b: Float[np.ndarray, " 4"]) -> float:
    """Part of the smaller box that lies in the other, in [0, 1]."""
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    smaller = min(float((a[2:] - a[:2]).prod()), float((b[2:] - b[:2]).prod()))
    return float(shared) / max(smaller, 1e-9)


def clean_masks(
    masks: Bool[np.ndarray, "N H W"], boxes: Float[np.ndarray, "N 4"], params: SubjectsParams
) -> Bool[np.ndarray, "N H W"] | tuple[str, str]:
    """Disjoint masks of one piece without holes; or why they are refused, as a reason and a detail.

    A pixel that several people claim goes to nobody: it is not known whose it is.
    """
    contested = masks.sum(axis=0) > 1
    cleaned = np.stack([largest_component(mask & ~contested) for mask in masks])
    for i, mask in enumerate(cleaned):
        others = np.delete(cleaned, i, axis=0).any(axis=0)
        cleaned[i] = np.asarray(ndimage.binary_fill_holes(mask), bool) & ~others & ~contested
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    fill = cleaned.sum(axis=(1, 2)) / np.maximum(areas, 1)
    if fill.min() < params.min_mask_fill:
        return "mask_too_small", f"fills {fill.min():.2f} of its box"
    return cleaned


def largest_component(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The largest connected piece of a mask (paper, appendix C)."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if len(statistics) < 2:
        return np.zeros_like(mask)
    return labels == 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
