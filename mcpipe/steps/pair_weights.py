"""Masks and weights of a pair's tokens, which do not depend on the backbone that is trained."""

from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Float

from mcpipe.flux.encode import token_masks
from mcpipe.flux.tokens import Grid
from mcpipe.objectives.focus import detail_mask, patch_entropy
from mcpipe.steps.encode_pairs import patch_quality
from mcpipe.train.preference.records import DisruptedPair


class PairWeights(TypedDict):
    """Fields of `mcpipe.train.preference.records.EncodedImages` that weigh tokens."""

    masks: Bool[np.ndarray, "subjects rows columns"]
    detail: Float[np.ndarray, "rows columns"]
    quality: Float[np.ndarray, "rows columns"]


def pair_weights(
    pair: DisruptedPair, tokens: Float[np.ndarray, "2 tokens packed"], grid: Grid, min_mask_fraction: float
) -> PairWeights:
    """M_prior, M_d and PatchDPO's quality on a grid of tokens; ``tokens`` are the winner's, then the loser's."""
    return PairWeights(
        masks=token_masks(pair.masks, grid, min_mask_fraction),
        detail=detail_mask(patch_entropy(pair.winner, grid)),
        quality=patch_quality(tokens[0], tokens[1], grid),
    )
