"""The mean attention of a set of queries to each key, without keeping any attention matrix.

    c_j = mean over heads h and queries i of softmax_j(q_hi . k_hj / sqrt(d))

The backward pass needs q, k and G = dL/dc only: with P the probabilities and w = 1 / (heads x queries), dP = w G and
dS = P (dP - rowsum(P dP)). Probabilities live for one chunk of heads at a time.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import BackwardCFunction, once_differentiable

CHUNK_BYTES = 64 * 2**20
"""Memory for the probabilities of one chunk of heads; performance only."""


def column_mean(
    queries: Float[Tensor, "batch queries heads width"],
    keys: Float[Tensor, "batch keys heads width"],
    sizes: Sequence[int],
) -> Float[Tensor, "batch subjects keys"]:
    """Where each subject's queries look, in float32: rows sum to 1.

    ``sizes`` says how many consecutive queries belong to each subject; their sum is the number of queries.
    """
    assert sum(sizes) == queries.shape[1], f"{sizes} queries per subject, but {queries.shape[1]} in all"
    return _ColumnMean.apply(queries, keys, tuple(sizes))


class _ColumnMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: BackwardCFunction, queries: Tensor, keys: Tensor, sizes: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(queries, keys, torch.tensor(sizes))
        heads = queries.shape[2]
        total = queries.new_zeros(queries.shape[0], len(sizes), keys.shape[1], dtype=torch.float32)
        for chunk in _chunks(queries, keys):
            weights = _probabilities(queries[:, :, chunk], keys[:, :, chunk])
            for subject, part in enumerate(weights.split(sizes, dim=2)):
                total[:, subject] += part.sum((1, 2)) / (heads * sizes[subject])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        queries, keys, sizes = iter(ctx.saved_tensors)
        grad_queries, grad_keys = torch.zeros_like(queries), torch.zeros_like(keys)
        shares = [grad[:, i] / (queries.shape[2] * size) for i, size in enumerate(sizes.tolist())]
        rows = torch.stack(shares, 1).repeat_interleave(sizes.to(grad.device), dim=1)
        for chunk in _chunks(queries, keys):
            q, k = queries[:, :, chunk].float(), keys[:, :, chunk].float()
            weights = _probabilities(q, k)
            expected = torch.einsum("bhik,bik->bhi", weights, rows)
            scores = weights * (rows[:, None] - expected[..., None]) / math.sqrt(q.shape[-1])
            grad_queries[:, :, chunk] = torch.einsum("bhik,bkhd->bihd", scores, k).to(queries.dtype)
            grad_keys[:, :, chunk] = torch.einsum("bhik,bihd->bkhd", scores, q).to(keys.dtype)
        return grad_queries, grad_keys, None


def _chunks(queries: Tensor, keys: Tensor) -> Iterator[slice]:
    """Slices of the heads, as many at a time as the budget allows."""
    batch, num_queries, heads, _ = queries.shape
    step = max(1, CHUNK_BYTES // (4 * batch * num_queries * keys.shape[1]))
    for start in range(0, heads, step):
        yield slice(start, start + step)


def _probabilities(queries: Tensor, keys: Tensor) -> Tensor:
    scores = torch.einsum("bihd,bkhd->bhik", queries.float(), keys.float())
    return (scores / math.sqrt(queries.shape[-1])).softmax(-1)
