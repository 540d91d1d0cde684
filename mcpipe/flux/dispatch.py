"""Every token through its own experts and no others.

Tokens are sorted by expert, so that each expert's are consecutive rows and all experts are two matrix products over
groups of rows. Shapes do not depend on where tokens go, and nothing is read back from the device.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import BackwardCFunction, once_differentiable
from torch.nn.functional import grouped_mm

from mcpipe.objectives.moe import Choice

KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Input types of the grouped product."""
KERNEL_ALIGNMENT = 16
"""Bytes of which a row must be a multiple."""


def mixture(
    tokens: Float[Tensor, "tokens in"],
    choice: Choice,
    down: Float[Tensor, "experts rank in"],
    up: Float[Tensor, "out experts rank"],
) -> Float[Tensor, "tokens out"]:
    """sum_i p_i B_i A_i h over the chosen experts i of each token h; ``down`` holds the A_i, ``up`` the B_i."""
    num_kept = choice.experts.shape[1]
    experts = choice.experts.flatten()
    order = experts.argsort(stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    ends = (experts[:, None] == torch.arange(len(down), device=experts.device)).sum(0).cumsum(0).int()
    middle = grouped(_Sorted.apply(tokens, order, place, num_kept), down.transpose(1, 2), ends)
    middle = middle * _Sorted.apply(choice.weights.flatten()[:, None].to(middle.dtype), order, place, 1)
    out = _Sorted.apply(grouped(middle, up.permute(1, 2, 0), ends), place, order, 1)
    return out if num_kept == 1 else out.unflatten(0, (-1, num_kept)).sum(1)


def grouped(
    rows: Float[Tensor, "rows width"], weights: Float[Tensor, "groups width out"], ends: Int[Tensor, " groups"]
) -> Float[Tensor, "rows out"]:
    """Every group of rows times its own matrix; group i ends before row ``ends[i]``, where group i + 1 starts.

    One kernel where its dtypes and alignment allow; otherwise one product per group, with the same result.
    """
    size = rows.element_size()
    aligned = all(width * size % KERNEL_ALIGNMENT == 0 for width in weights.shape[1:])
    if aligned and rows.dtype in KERNEL_DTYPES:
        return grouped_mm(rows, weights, offs=ends)
    stops = ends.tolist()
    groups = zip([0, *stops], stops, weights, strict=False)
    return torch.cat([rows[start:stop] @ weight for start, stop, weight in groups])


class _Sorted(torch.autograd.Function):
    """Rows in another order, each ``num_copies`` times; the gradient goes back by the inverse order: no atomic sums."""

    @staticmethod
    def forward(ctx: BackwardCFunction, rows: Tensor, order: Tensor, place: Tensor, num_copies: int) -> Tensor:
        ctx.save_for_backward(place)
        ctx.num_copies = num_copies
        return rows.index_select(0, order if num_copies == 1 else order // num_copies)  # copies whole rows

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (place,) = ctx.saved_tensors
        grad = grad.index_select(0, place)
        return grad if ctx.num_copies == 1 else grad.unflatten(0, (-1, ctx.num_copies)).sum(1), None, None, None
