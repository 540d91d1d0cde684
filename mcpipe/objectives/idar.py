"""Identity-disentangled attention regularisation (paper, eqs. 4 to 6).

Each reference's tokens should look at their own subject's region of the image. Their mean attention to the image
tokens (eq. 4, averaged over the double blocks) is scaled to a soft mask (eq. 5: "average and normalize") and compared
with the subject's mask by a soft Dice loss (eq. 6):

    L_attn = sum_i [ 1 - (2 sum_j M^_ij M_ij + eps) / (sum_j M^_ij + sum_j M_ij + eps) ]

The paper does not say how to normalise. Raw attention sums to 1 over all tokens, so that its Dice stays near 0
for any network; dividing by the peak ("max", our default) brings it to [0, 1].
"""

from typing import Annotated, Literal

from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor

from mcpipe.core.params import Params

Norm = Literal["max", "mass", "minmax", "raw"]

Direction = Literal["reference_to_image", "image_to_reference"]
"""Queries and keys of the attention that is supervised: where a reference's tokens look in the image (paper, eq. 4), or
which of the image's tokens look at the reference, the way on which identity enters the image (ours)."""

EPSILON = 1e-6
"""The paper's "small constant"."""

Attention = Float[Tensor, "batch subjects tokens"]
Masks = Bool[Tensor, "batch subjects tokens"]


class NoiseRange(Params):
    """Noise levels t from a smallest to a largest one, both included; 0 is the image, 1 noise alone."""

    min: float = Field(ge=0, le=1)
    max: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _in_order(self) -> "NoiseRange":
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    def covers(self, t: Float[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        """Which noise levels lie in the range."""
        return (self.min <= t) & (t <= self.max)


class IdarScope(Params):
    """Where the attention loss acts, and from when on."""

    blocks: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None
    """Indices of the double blocks whose attention is supervised, from 0; null for all."""
    noise: NoiseRange
    """Samples with other noise levels add nothing to the loss, which stays a mean over all samples of the batch."""
    start: float = Field(ge=0, lt=1)
    """Share of the optimiser steps that are taken before the loss begins."""


def soft_mask(attention: Attention, masks: Masks, norm: Norm) -> Attention:
    """Attention as a soft mask.

    ``max`` divides by the peak; ``mass`` scales the sum to the mask's area, so that the Dice loss is exactly the share
    of attention outside; ``minmax`` also removes the floor (zeros if attention is uniform); ``raw`` leaves it alone.
    """
    if norm == "max":
        return attention / attention.amax(-1, keepdim=True)
    if norm == "mass":
        return attention * masks.sum(-1, keepdim=True)
    if norm == "minmax":
        low, high = attention.amin(-1, keepdim=True), attention.amax(-1, keepdim=True)
        return (attention - low) / (high - low).clamp(min=EPSILON)
    return attention


def dice_loss(soft: Attention, masks: Masks, eps: float = EPSILON) -> Float[Tensor, "batch subjects"]:
    """One minus the soft Dice overlap of each subject's map with its mask, in [0, 1]."""
    overlap = (soft * masks).sum(-1)
    return 1 - (2 * overlap + eps) / (soft.sum(-1) + masks.sum(-1) + eps)


def attention_loss(attention: Attention, masks: Masks, norm: Norm) -> Float[Tensor, ""]:
    """L_attn: summed over subjects, averaged over the batch; a subject with an empty mask has no say."""
    losses = dice_loss(soft_mask(attention, masks, norm), masks)
    return (losses * masks.any(-1)).sum(-1).mean()


def attention_inside(attention: Attention, masks: Masks) -> Float[Tensor, "batch subjects"]:
    """Share of each subject's attention that falls inside its mask, in [0, 1]."""
    return (attention * masks).sum(-1)


def peak_inside(attention: Attention, masks: Masks) -> Bool[Tensor, "batch subjects"]:
    """Whether the strongest response of each subject falls inside its mask."""
    return masks.gather(-1, attention.argmax(-1, keepdim=True)).squeeze(-1)
