"""Whether the people of two frames are the same people, and who is who (paper, appendix C)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from pydantic import Field
from scipy.optimize import linear_sum_assignment

from mcpipe.curate.frames import sharpness
from mcpipe.curate.samples import padded_square
from mcpipe.params import Params

ALIGNED_PX = 112
"""Side at which recognisers of the ArcFace family see a face."""


class IdentityParams(Params):
    """When two faces are one person."""

    min_similarity: float = Field(ge=-1, le=1)
    """Cosine similarity of the same person in both frames; belongs to the recogniser named in ``models.faces``."""
    min_margin: float = Field(ge=0, le=2)
    """By how much a person must be more similar to themself than to anybody else."""
    min_face_score: float = Field(ge=0, le=1)
    """Certainty of a face detection."""
    min_face_px: float = Field(ge=1)
    """Height of a face in the frame; under it similarities of the same and of different people overlap."""
    min_face_sharpness: float = Field(ge=0)
    """Variance of the Laplacian at 112 px under which a face counts as blurred or anonymised."""
    detection_size: int = Field(ge=32)
    """Side in pixels at which the detector sees a portrait."""
    records_per_shard: int = Field(ge=1)


@dataclass(frozen=True)
class Match:
    """Who is who in two frames."""

    order: Int[np.ndarray, " N"]
    """Index in the second frame of each person of the first."""
    similarity: Float[np.ndarray, " N"]
    """Cosine of each person with themself."""
    margin: float
    """Least lead of a person's own similarity over the cross ones of its row and column."""


def face_of(
    boxes: Float[np.ndarray, "F 4"], mask: Bool[np.ndarray, "H W"], params: IdentityParams
) -> int | tuple[str, str]:
    """Index of the one face whose centre lies in a person's mask; or why there is none, as a reason and a detail."""
    inside = [i for i, box in enumerate(boxes) if _centre_is_in(box, mask)]
    if not inside:
        return "no_face", f"{len(boxes)} face(s), none in the mask"
    if len(inside) > 1:
        return "several_faces", f"{len(inside)} faces in one mask"
    height = float(boxes[inside[0], 3] - boxes[inside[0], 1])
    if height < params.min_face_px:
        return "face_too_small", f"{height:.0f} px"
    return inside[0]


def face_sharpness(picture: UInt8[np.ndarray, "H W 3"], box: Float[np.ndarray, " 4"]) -> float:
    """Variance of the Laplacian of a face at the size at which recognisers see it."""
    return sharpness(padded_square(picture, box, float((box[2:] - box[:2]).max()), ALIGNED_PX), ALIGNED_PX)


def match_people(
    initial: Float[np.ndarray, "N D"], middle: Float[np.ndarray, "N D"], params: IdentityParams
) -> Match | tuple[str, str]:
    """The one-to-one assignment with the largest sum of cosines; or why it is refused, as a reason and a detail."""
    similarity = initial @ middle.T
    rows, order = linear_sum_assignment(-similarity)
    own = similarity[rows, order]
    if own.min() < params.min_similarity:
        return "different_person", f"similarity {own.min():.2f} is under {params.min_similarity}"
    cross = similarity.copy()
    cross[rows, order] = -np.inf
    best_cross = np.maximum(cross.max(axis=1)[rows], cross.max(axis=0)[order])
    margin = float((own - best_cross).min()) if len(own) > 1 else 2.0
    if margin < params.min_margin:
        return "ambiguous_identity", f"leads by {margin:.2f} only, {params.min_margin} wanted"
    return Match(order=order, similarity=own, margin=margin)


def _centre_is_in(box: Float[np.ndarray, " 4"], mask: Bool[np.ndarray, "H W"]) -> bool:
    x, y = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
    return 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and bool(mask[y, x])
