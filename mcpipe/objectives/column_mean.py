"""The mean attention of a set of queries to each key, without keeping any attention matrix.

    c_j = mean over heads h and queries i of softmax_j(q_hi . k_hj / sqrt(d))

The backward pass needs q, k and G = dL/dc only: with P the probabilities and w = 1 / (heads x queries), dP = w G and
dS = P (dP - rowsum(P dP)). There are two ways to get there:

    chunked  probabilities live for a few heads at a time
    sdpa     they never exist: c is the gradient of fused attention's values at a one-hot upstream gradient, and dS that
             of fused attention whose values are G; more arithmetic, fewer bytes, precision of the inputs
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import one_hot, scaled_dot_product_attention

CHUNK_BYTES = 4 * 2**20
"""Memory for the probabilities of one chunk of heads; performance only (they should stay in a processor's cache)."""

Backend = Literal["chunked", "sdpa"]
Queries = Float[Tensor, "batch heads queries width"]
Keys = Float[Tensor, "batch heads keys width"]


class Way(NamedTuple):
    """How to compute the mean and its gradient."""

    mean: Callable[[Queries, Keys, Sequence[int]], Tensor]
    """Takes queries, keys and the numbers of queries per subject; returns mean attention (batch, subjects, keys)."""
    gradient: Callable[[Queries, Keys, Sequence[int], Tensor], tuple[Queries, Keys]]
    """Takes the same and the gradient of the mean; returns gradients of queries and keys."""


def column_mean(
    queries: Float[Tensor, "batch queries heads width"],
    keys: Float[Tensor, "batch keys heads width"],
    sizes: Sequence[int],
    backend: Backend | None = None,
) -> Float[Tensor, "batch subjects keys"]:
    """Where each subject's queries look, in at least float32: rows sum to 1.

    Args:
        queries: Of all subjects, one after the other.
        keys: The same for all.
        sizes: How many consecutive queries belong to each subject; their sum is the number of queries.
        backend: How to compute it; by default `best_backend`.
    """
    assert sum(sizes) == queries.shape[1], f"{sizes} queries per subject, but {queries.shape[1]} in all"
    chosen = backend or best_backend(queries)
    return _ColumnMean.apply(queries.transpose(1, 2), keys.transpose(1, 2), tuple(sizes), chosen)


def best_backend(queries: Tensor) -> Backend:
    """``sdpa`` on a GPU unless the compiler is to fuse it, else ``chunked``."""
    return "sdpa" if queries.is_cuda and not torch.compiler.is_compiling() else "chunked"


class _ColumnMean(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's
        queries: Tensor,
        keys: Tensor,
        sizes: tuple[int, ...],
        backend: Backend,
    ) -> Tensor:
        ctx.save_for_backward(queries, keys)
        ctx.sizes, ctx.backend = sizes, backend
        return WAYS[backend].mean(queries, keys, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401 - torch's
        queries, keys = ctx.saved_tensors
        return *WAYS[ctx.backend].gradient(queries, keys, ctx.sizes, grad), None, None


def chunked_mean(queries: Queries, keys: Keys, sizes: Sequence[int]) -> Float[Tensor, "batch subjects keys"]:
    """The mean, a few heads at a time."""
    total = queries.new_zeros(len(queries), len(sizes), keys.shape[2], dtype=_precise(queries.dtype))
    share = torch.block_diag(*(total.new_full((1, size), 1 / (size * queries.shape[1])) for size in sizes))
    for chunk in _chunks(queries, keys):
        weights = _probabilities(queries[:, chunk].to(total.dtype), keys[:, chunk].to(total.dtype))
        total += (share @ weights).sum(1)
    return total


def chunked_gradient(queries: Queries, keys: Keys, sizes: Sequence[int], grad: Tensor) -> tuple[Queries, Keys]:
    """Gradients of queries and keys, a few heads at a time."""
    grad_queries, grad_keys = torch.empty_like(queries), torch.empty_like(keys)
    shares = _shares(grad, sizes, queries.shape[1]) / math.sqrt(queries.shape[-1])
    for chunk in _chunks(queries, keys):
        q, k = queries[:, chunk].to(grad.dtype), keys[:, chunk].to(grad.dtype)
        scores = _probabilities(q, k)
        for subject, part in enumerate(scores.split(list(sizes), dim=2)):
            share = shares[:, subject, None, None]
            part.mul_(share - part @ share.mT)
        grad_queries[:, chunk] = (scores @ k).to(queries.dtype)
        grad_keys[:, chunk] = (scores.mT @ q).to(keys.dtype)
    return grad_queries, grad_keys


def fused_mean(queries: Queries, keys: Keys, sizes: Sequence[int]) -> Float[Tensor, "batch subjects keys"]:
    """The mean, as a gradient of fused attention."""
    with torch.enable_grad():
        values = torch.zeros_like(keys).requires_grad_()
        out = scaled_dot_product_attention(queries.detach(), keys.detach(), values)
        (columns,) = torch.autograd.grad(out, values, _owners(queries, sizes))
    columns = columns[..., : len(sizes)].to(_precise(queries.dtype)).mean(1)
    return columns.mT / torch.tensor(sizes, dtype=columns.dtype).to(columns.device)[:, None]


def fused_gradient(queries: Queries, keys: Keys, sizes: Sequence[int], grad: Tensor) -> tuple[Queries, Keys]:
    """Gradients of queries and keys, as those of fused attention."""
    shares = _shares(grad, sizes, queries.shape[1])
    values = torch.zeros_like(keys)
    values[..., : len(sizes)] = shares.mT[:, None].to(values.dtype)
    with torch.enable_grad():
        q, k = queries.detach().requires_grad_(), keys.detach().requires_grad_()
        out = scaled_dot_product_attention(q, k, values)
        grad_queries, grad_keys = torch.autograd.grad(out, (q, k), _owners(queries, sizes))
    return grad_queries, grad_keys


WAYS: dict[Backend, Way] = {"chunked": Way(chunked_mean, chunked_gradient), "sdpa": Way(fused_mean, fused_gradient)}


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _shares(grad: Tensor, sizes: Sequence[int], heads: int) -> Tensor:
    """G of every subject, divided by the number of its queries over all heads."""
    return torch.stack([grad[:, subject] / (heads * size) for subject, size in enumerate(sizes)], 1)


def _owners(queries: Queries, sizes: Sequence[int]) -> Queries:
    """A one in the column of each query's subject, as wide as the heads."""
    subjects = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    columns = one_hot(subjects, queries.shape[-1]).to(queries)
    return columns.expand_as(queries).contiguous()


def _chunks(queries: Queries, keys: Keys) -> Iterator[slice]:
    """Slices of the heads, as many at a time as the budget allows."""
    batch, heads, num_queries, _ = queries.shape
    step = max(1, CHUNK_BYTES // (4 * batch * num_queries * keys.shape[2]))
    for start in range(0, heads, step):
        yield slice(start, start + step)


def _probabilities(queries: Queries, keys: Keys) -> Tensor:
    return (queries / math.sqrt(queries.shape[-1]) @ keys.mT).softmax(-1)
