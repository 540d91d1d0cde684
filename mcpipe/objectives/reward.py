"""Multi-ID alignment (paper, eq. 10): every reference person matched with at most one generated face.

    R = max over X of sum_ij C_ij X_ij,    X in {0, 1}, row and column sums at most 1

Pairs may stay unmatched, so that a negative similarity is never chosen. Three other rewards stand beside it:

    contrastive   mean over all cells of C_ij, negative where X_ij = 0 (UMO): faces that resemble everybody lose; here X
                  matches as many pairs as there can be, unlike ones, too
    row_max       mean over references of the best face, which may serve several of them (XVerse's evaluation)
    by_name       mean over references of the subject that their own name located (PSR; `mcpipe.objectives.pairwise`)
"""

from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

Matching = Literal["hungarian", "contrastive", "row_max", "by_name"]


def match(similarity: Float[np.ndarray, "references faces"]) -> list[tuple[int, int]]:
    """Pairs (reference, face) of the best one-to-one assignment, by reference; only pairs of positive similarity."""
    positive = np.maximum(similarity, 0)
    rows, columns = linear_sum_assignment(positive, maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if similarity[i, j] > 0]


def matched_similarity(similarity: Float[np.ndarray, "references faces"]) -> Float[np.ndarray, " references"]:
    """Similarity of each reference to the face it is matched with; 0 for a reference without one."""
    scores = np.zeros(len(similarity), similarity.dtype)
    for reference, face in match(similarity):
        scores[reference] = similarity[reference, face]
    return scores


def identity_reward(similarity: Float[np.ndarray, "references faces"], matching: Matching = "hungarian") -> float:
    """Similarity of faces and people, 0 without a face; with ``hungarian`` in [0, 1], and a missing person counts 0.

    The paper leaves the normalisation open; the mean makes rewards comparable between different numbers of people.

    Raises:
        ValueError: with ``by_name``, whose column i is the subject that the name of reference i located, the numbers
            differ.
    """
    if similarity.shape[1] == 0:
        return 0.0
    if matching == "hungarian":
        return float(matched_similarity(similarity).mean())
    if matching == "by_name":
        if similarity.shape[0] != similarity.shape[1]:
            raise ValueError(
                f"by_name needs a subject per reference, found {similarity.shape[1]} for {len(similarity)}"
            )
        return float(np.diagonal(similarity).mean())
    if matching == "row_max":
        return float(similarity.max(1).mean())
    signs = np.full(similarity.shape, -1.0)
    signs[linear_sum_assignment(similarity, maximize=True)] = 1
    return float((signs * similarity).mean())
