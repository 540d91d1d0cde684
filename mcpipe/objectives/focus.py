"""Where FocusDPO looks (arXiv:2509.01181, eqs. 2 to 9): subject tokens that are confused, and those rich in detail.

    S     mean over double blocks of <CLS, H_j>, CLS the mean of a reference's tokens, H_j a token of the noisy image
    M'    the K best tokens of S, K the number of the subject's tokens
    M_s   M_prior without M': the subject's tokens that its reference does not match
    M_d   entropy of the grey levels of every token's patch, scaled to [0, 1] over the image
    A     |M_s|_1 / |M_prior|_1, one minus the recall of the match
    M     M_s where A > tau, else gamma M_s + (1 - gamma) M_d M_prior

Eq. 3 prints both vectors divided by their squared norms, which prefers short tokens; "cosine", our default, divides by
the norms. With several references S, K and M' belong to each of them, with its own mask, and M_s is the union.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

Norm = Literal["cosine", "squared"]
GREY_LEVELS = 256
"""Bins of the histogram of a patch; at most 8 bits."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R BT.601)."""
EPSILON = 1e-12

Subjects = Bool[Tensor, "batch subjects tokens"]
TokenMask = Bool[Tensor, "batch tokens"]


class Focus(NamedTuple):
    """The fused mask of every image, and the ratio that decides how it is fused."""

    mask: Float[Tensor, "batch tokens"]
    """M in [0, 1]."""
    ratio: Float[Tensor, " batch"]
    """A_focus in [0, 1]; 0 where there is no subject."""


def match_scores(
    cls: Float[Tensor, "batch subjects width"], tokens: Float[Tensor, "batch tokens width"], norm: Norm
) -> Float[Tensor, "batch subjects tokens"]:
    """<CLS, H> of one block (eq. 3 without the mean over blocks), in float32."""
    power = 1 if norm == "cosine" else 2
    cls, tokens = (each.float() / each.float().norm(dim=-1, keepdim=True).clamp(min=EPSILON) ** power
                   for each in (cls, tokens))  # fmt: skip
    return cls @ tokens.transpose(-1, -2)


def matched(scores: Float[Tensor, "batch subjects tokens"], prior: Subjects) -> Subjects:
    """M' of every subject: its K best tokens, K the size of its mask (eqs. 4 and 5); equal scores go by place."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        -1, order, torch.arange(order.shape[-1], device=order.device).expand_as(order)
    )
    return rank < prior.sum(-1, keepdim=True)


def structure_mask(scores: Float[Tensor, "batch subjects tokens"], prior: Subjects) -> TokenMask:
    """M_s: tokens of a subject that the match with its own reference misses, of all subjects together (eq. 6)."""
    return (prior & ~matched(scores, prior)).any(1)


def patch_entropy(
    picture: UInt8[np.ndarray, "height width 3"], grid: tuple[int, int]
) -> Float[np.ndarray, "rows columns"]:
    """C: entropy in bits, 0 to 8, of the grey levels of every token's patch (eq. 7).

    Raises:
        ValueError: the image cannot be divided into so many patches.
    """
    (rows, columns), (height, width) = grid, picture.shape[:2]
    if height % rows or width % columns:
        raise ValueError(f"a picture of {height} x {width} px cannot be divided into {rows} x {columns} patches")
    grey = np.round(picture @ np.array(LUMA)).astype(np.int64).clip(0, GREY_LEVELS - 1)
    patches = (
        grey.reshape(rows, height // rows, columns, width // columns).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    )
    offsets = np.arange(len(patches))[:, None] * GREY_LEVELS
    counts = np.bincount((patches + offsets).ravel(), minlength=len(patches) * GREY_LEVELS)
    shares = counts.reshape(len(patches), GREY_LEVELS) / patches.shape[1]
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return (-(shares * logs).sum(1)).clip(0).reshape(rows, columns).astype(np.float32)


def detail_mask(complexity: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """M_d: complexity scaled to [0, 1] over the image (eq. 8); zeros where all patches are alike."""
    low, high = complexity.min(), complexity.max()
    return (complexity - low) / (high - low) if high > low else np.zeros_like(complexity)


def focus(
    structure: TokenMask, detail: Float[Tensor, "batch tokens"], prior: TokenMask, tau: float, gamma: float
) -> Focus:
    """M and A_focus (eq. 9); a ratio of exactly tau takes the mixed branch."""
    confused, subject = structure.float(), prior.float()
    ratio = confused.sum(-1) / subject.sum(-1).clamp(min=1)
    mixed = gamma * confused + (1 - gamma) * detail * subject
    return Focus(torch.where((ratio > tau)[:, None], confused, mixed), ratio)
