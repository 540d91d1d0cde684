"""Matches the people of two frames by their faces, and checks that they are the same (paper, appendix C)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from pydantic import Field
from scipy.optimize import linear_sum_assignment

from mcpipe.core.params import Params, RecordsPerShard
from mcpipe.core.records import RejectionError
from mcpipe.core.rounding import DECIMALS, cosines
from mcpipe.curate.recognisers import PerRecogniser
from mcpipe.curate.samples import padded_square
from mcpipe.curate.sharpness import blockiness, softness

FACE_PX = 80
"""Height in pixels at which a face's texture is measured, close to the input size of recognisers."""
TEXTURE_CONTEXT, TEXTURE_CORE = 1.3, 0.5
"""Side of the square whose softness is measured, in units of the face's longer side, and the part of it that counts."""
GRID_CONTEXT = 0.9
"""Side of the square whose blockiness is measured, in units of the face's longer side."""
FEATURES, SEEN = slice(0, 3), 0.5
"""Indices of nose and eyes among the joints, and the minimum score of a visible joint."""
MOSAIC_BLOCKS = (4, 16)
"""Minimum and maximum number of mosaic blocks over the height of a face that hide the identity."""


class IdentityParams(Params):
    """Thresholds from which two faces count as one person."""

    min_similarity: PerRecogniser
    """Minimum cosine of the same person in both frames, by the name of the recogniser's pack."""
    min_margin: float = Field(ge=0, le=2)
    """Minimum lead of a person's similarity to themself over the similarity to any other person."""
    min_face_score: float = Field(ge=0, le=1)
    """Minimum score of a face detection."""
    min_face_px: float = Field(ge=1)
    """Minimum height of a face in the frame; below it, similarities of the same and of different people overlap."""
    min_face_inside: float = Field(ge=0, le=1)
    """Minimum part of a face's box that the person's mask covers."""
    max_face_softness: float = Field(ge=0, le=1)
    """Softness at 80 px face height above which a face counts as blurred or anonymised."""
    max_face_blockiness: float = Field(ge=0)
    """Steepness along a grid over that elsewhere, above which a face counts as hidden by a mosaic."""
    detection_size: int = Field(ge=32)
    """Side in pixels at which the detector sees a portrait."""
    records_per_shard: RecordsPerShard


@dataclass(frozen=True)
class Match:
    """The assignment of the people of two frames."""

    order: Int[np.ndarray, " N"]
    """Index in the second frame of each person of the first."""
    similarity: Float[np.ndarray, " N"]
    """Cosine of each person with themself."""
    margin: float
    """Smallest lead of a person's own similarity over the others of its row and column; 2, the maximum, for one
    person."""


def own_face(
    boxes: Float[np.ndarray, "F 4"],
    mask: Bool[np.ndarray, "H W"],
    joints: Float[np.ndarray, "17 3"],
    params: IdentityParams,
) -> int:
    """Index of the only face that lies in a person's mask.

    If there are several, the face at the person's eyes and nose counts; others are prints on clothes or false
    positives.

    Raises:
        RejectionError: ``no_face`` or ``several_faces``.

    """
    inside = [i for i, box in enumerate(boxes) if _part_inside(box, mask) >= params.min_face_inside]
    if not inside:
        raise RejectionError("no_face", f"{len(boxes)} face(s), none in the mask")
    own = [i for i in inside if _holds_features(boxes[i], joints)] if len(inside) > 1 else inside
    if len(own) != 1:
        raise RejectionError("several_faces", f"{len(inside)} faces in one mask")
    return own[0]


def face_scores(picture: UInt8[np.ndarray, "H W 3"], box: Float[np.ndarray, " 4"]) -> dict[str, float]:
    """Measurements for `check_face`."""
    longer = float((box[2:] - box[:2]).max())
    context = padded_square(picture, box, TEXTURE_CONTEXT * longer, round(TEXTURE_CONTEXT * FACE_PX))
    grid = padded_square(picture, box, GRID_CONTEXT * longer, round(GRID_CONTEXT * FACE_PX))
    return {
        "face_px": float(box[3] - box[1]),
        "face_softness": softness(context, len(context), TEXTURE_CORE),
        "face_blockiness": blockiness(grid, len(grid), MOSAIC_BLOCKS),
    }


def check_face(scores: dict[str, float], params: IdentityParams) -> None:
    """Check by the measurements of `face_scores` that a face can be recognised.

    Raises:
        RejectionError: ``face_too_small``, ``face_blurred`` or ``face_pixelated``.

    """
    if scores["face_px"] < params.min_face_px:
        raise RejectionError("face_too_small", f"{scores['face_px']:.0f} px")
    if scores["face_softness"] > params.max_face_softness:
        raise RejectionError("face_blurred", f"softness {scores['face_softness']:.2f}")
    if scores["face_blockiness"] > params.max_face_blockiness:
        raise RejectionError("face_pixelated", f"blockiness {scores['face_blockiness']:.1f}")


def match_people(initial: Float[np.ndarray, "N D"], middle: Float[np.ndarray, "N D"]) -> Match:
    """The one-to-one assignment with the largest sum of cosines."""
    similarity = cosines(initial, middle)
    rows, order = linear_sum_assignment(-similarity)
    own = similarity[rows, order]
    cross = similarity.copy()
    cross[rows, order] = -np.inf
    best_cross = np.maximum(cross.max(axis=1)[rows], cross.max(axis=0)[order])
    margin = float((own - best_cross).min().round(DECIMALS)) if len(own) > 1 else 2.0
    return Match(order=order, similarity=own, margin=margin)


def check_match(match: Match, min_similarity: float, min_margin: float) -> None:
    """Check that the people of both frames are surely the same.

    Raises:
        RejectionError: ``different_person`` or ``ambiguous_identity``.

    """
    if (least := float(match.similarity.min())) < min_similarity:
        raise RejectionError("different_person", f"similarity {least:.2f} is under {min_similarity}")
    if match.margin < min_margin:
        raise RejectionError("ambiguous_identity", f"leads by {match.margin:.2f} only, {min_margin} wanted")


def _holds_features(box: Float[np.ndarray, " 4"], joints: Float[np.ndarray, "17 3"]) -> bool:
    """Whether most of the visible joints among nose and eyes lie in a box."""
    places = joints[FEATURES, :2][joints[FEATURES, 2] >= SEEN]
    held = ((places >= box[:2]) & (places <= box[2:])).all(axis=1)
    return 2 * int(held.sum()) > len(places)


def _part_inside(box: Float[np.ndarray, " 4"], mask: Bool[np.ndarray, "H W"]) -> float:
    x0, y0, x1, y1 = np.round(box).astype(int)
    covered = int(mask[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)].sum())
    return covered / max((x1 - x0) * (y1 - y0), 1)
