"""Slower implementations of the training core's functions, and counters, for the benchmark of training."""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from mcpipe.flux.attention import Turned
from mcpipe.flux.backbone import rotated
from mcpipe.objectives.moe import choose


def naive_column_mean(queries: Tensor, keys: Tensor, sizes: Sequence[int]) -> Tensor:
    """Attention maps from whole attention matrices, which autograd keeps."""
    scores = torch.einsum("bihd,bkhd->bhik", queries.float(), keys.float()) / queries.shape[-1] ** 0.5
    weights = scores.softmax(-1).mean(1)
    return torch.stack([part.mean(1) for part in weights.split(list(sizes), 1)], 1)


def naive_turned_column_mean(queries: Turned, keys: Turned, sizes: Sequence[int]) -> Tensor:
    """The same of queries and keys as the network has them; autograd keeps these, too."""
    return naive_column_mean(rotated(queries.normed, queries.rotary), rotated(keys.normed, keys.rotary), sizes)


def dense_experts(x: Tensor, gate: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Every expert for every token; weights of 0 remove the experts that are not selected."""
    choice = choose(x @ gate.T, 1, "st")
    weights = torch.zeros(len(x), len(down), dtype=x.dtype, device=x.device).scatter(1, choice.experts, choice.weights)
    middle = (x @ down.flatten(0, 1).T).unflatten(1, down.shape[:2]) * weights[..., None]
    return middle.flatten(1) @ up.flatten(1).T


def looped_experts(x: Tensor, gate: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """One expert after the other: select its tokens, add its output."""
    choice = choose(x @ gate.T, 1, "st")
    out = x.new_zeros(len(x), len(up))
    for expert in range(len(down)):
        rows = (choice.experts[:, 0] == expert).nonzero()[:, 0]
        middle = x.index_select(0, rows) @ down[expert].T * choice.weights[rows]
        out = out.index_add(0, rows, middle @ up[:, expert].T)
    return out


class FusedNorm(torch.autograd.Function):
    """Shapes of RMSNorm as a GPU's kernel has it, which keeps its input; ``meta`` would keep float32 copies."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        """Nothing but a shape."""
        ctx.save_for_backward(x, weight, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch's
        """An empty tensor of the right shape; it reads the saved tensors like the kernel."""
        x, *_ = ctx.saved_tensors
        return torch.empty_like(x, dtype=grad.dtype), None


@contextmanager
def kernels_of_a_gpu() -> Iterator[None]:
    """Context in which tensors on ``meta`` use the GPU's operations: fused attention, fused norms."""

    def attention(query: Tensor, key: Tensor, value: Tensor, **_: object) -> Tensor:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]

    def norm(x: Tensor, _shape: Sequence[int], weight: Tensor, _eps: float) -> Tensor:
        return FusedNorm.apply(x, weight)

    functional = nn.functional
    with (
        patch.object(functional, "scaled_dot_product_attention", attention),
        patch.object(functional, "rms_norm", norm),
    ):
        yield


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made within this context, on any device, ``meta`` included."""

    def __init__(self, *excluded: nn.Module | Tensor) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        tensors = [t for item in excluded for t in (item.parameters() if isinstance(item, nn.Module) else [item])]
        self._seen = {t.untyped_storage()._cdata for t in tensors}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 - as its base has it
        """Run an operation and count its outputs."""
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._count, out)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def grouped_flop(rows: Sequence[int], weights: Sequence[int], *_: object, **__: object) -> int:
    """Arithmetic of a product over groups of rows, which PyTorch's counter does not know."""
    return 2 * rows[0] * rows[1] * weights[-1]


FLOPS = {torch.ops.aten._grouped_mm: grouped_flop}
