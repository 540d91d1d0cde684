"""Attention maps of each reference over the image, captured in the double blocks while the network runs.

In a double block, ``attn.norm_q`` and ``attn.norm_k`` see exactly the queries and keys of the image stream. Hooks
there and on ``attn`` itself rebuild softmax(q_reference k_picture / sqrt(d)) over the image's tokens (paper, eq.
4), or softmax(q_picture k / sqrt(d)) over the tokens of image and references, for the other direction. The attention
that the network computes is not changed, for any kernel.

Nothing is kept for the backward pass but what the network itself keeps, namely what enters the norms; and the maps are
taken before the block's own attention, so that their backward pass comes after its, when its memory is free again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import rms_norm

from mcpipe.flux.backbone import FluxTransformer2DModel, rotated
from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.flux.tokens import Layout
from mcpipe.objectives.column_mean import WAYS, Backend, best_backend
from mcpipe.objectives.idar import Direction

Rotary = tuple[Float[Tensor, "tokens width"], Float[Tensor, "tokens width"]]
"""Cosines and sines of tokens' positions."""


class AttentionCapture:
    """Maps of the latest forward pass; a context, outside of which nothing is recorded. `mean` ends the recording.

    Under gradient checkpointing it must stay open until after the backward pass, which runs the blocks again. Compiled
    blocks are recorded if they were compiled within it.
    """

    def __init__(
        self,
        transformer: FluxTransformer2DModel,
        layout: Layout,
        direction: Direction = "reference_to_image",
        blocks: Sequence[int] | None = None,
    ) -> None:
        """Maps of a transformer's references in one direction; ``image_to_reference`` keeps probabilities in memory.

        Only the double blocks with the indices ``blocks`` are recorded; all of them without it.

        Raises:
            ValueError: there is no such block.
        """
        num = len(transformer.transformer_blocks)
        self._blocks = range(num) if blocks is None else sorted(set(blocks))
        if strangers := [index for index in self._blocks if not 0 <= index < num]:
            raise ValueError(f"there is no double block {strangers[0]}: the transformer has {num}, counted from 0")
        self._transformer = transformer
        self._direction = direction
        self._layout = layout
        self._rotary: dict[int, Rotary] = {}
        self._queries: dict[int, Normed] = {}
        self._maps: dict[int, Tensor] = {}
        self._num_image_tokens = layout.num_image_tokens
        """Number in the latest pass, whose images may have another grid than the layout's."""
        self._is_open = True
        """Not while blocks run again in the backward pass: their maps would keep all that they are made of."""
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> "AttentionCapture":
        self._handles.append(self._transformer.register_forward_pre_hook(self._opened, with_kwargs=True))
        for index in self._blocks:
            block = self._transformer.transformer_blocks[index]
            self._handles += [
                block.attn.register_forward_pre_hook(self._capture_rotary(index), with_kwargs=True),
                block.attn.norm_q.register_forward_hook(self._capture_queries(index)),
                block.attn.norm_k.register_forward_hook(self._capture_maps(index)),
            ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        for place in (self._rotary, self._queries, self._maps):
            place.clear()

    def mean(self) -> Float[Tensor, "batch subjects tokens"]:
        """Each reference's attention to the image, averaged over its tokens, heads and recorded blocks; sums to 1.

        In the other direction, the attention of every token of the image to the reference, scaled to sum to 1.
        """
        assert self._maps, "no forward pass has run within this context"
        self._is_open = False
        return torch.stack([self._maps[index] for index in sorted(self._maps)]).mean(0)

    def _opened(self, _module: nn.Module, _args: tuple, call: dict) -> None:
        # Ahead of the hook that appends the references, so that these are the image's tokens alone.
        self._num_image_tokens = call["hidden_states"].shape[1]
        self._maps.clear()
        self._is_open = True

    def _capture_rotary(self, index: int) -> Callable[[nn.Module, tuple, dict], None]:
        def store(_module: nn.Module, _args: tuple, call: dict) -> None:
            self._rotary[index] = call["image_rotary_emb"]

        return store

    def _capture_queries(self, index: int) -> Callable[[nn.Module, tuple, Tensor], None]:
        def store(module: nn.Module, args: tuple, output: Tensor) -> None:
            self._queries[index] = Normed(module, args[0], output)

        return store

    def _capture_maps(self, index: int) -> Callable[[nn.Module, tuple, Tensor], None]:
        def store(module: nn.Module, args: tuple, output: Tensor) -> None:
            queries, keys = self._queries.pop(index), Normed(module, args[0], output)
            rotary = self._rotary.pop(index)
            picture, size = self._num_image_tokens, self._layout.num_reference_tokens
            num_references = (output.shape[1] - picture) // size
            if self._direction == "reference_to_image":
                map_means = turned_column_mean(
                    queries.part(slice(picture, None), rotary),
                    keys.part(slice(0, picture), rotary),
                    [size] * num_references,
                )
            else:
                map_means = attention_received(
                    queries.part(slice(0, picture), rotary), keys.part(slice(None), rotary), num_references
                )
            if self._is_open:
                self._maps[index] = map_means

        return store


@contextmanager
def recorded_attention(network: ReferenceFlux) -> Iterator[list[Float[Tensor, "batch subjects tokens"]]]:
    """Within this context every step of the network appends its attention maps to a list."""
    maps: list[Tensor] = []
    with AttentionCapture(network.transformer, network.layout) as capture:
        handle = network.register_forward_hook(lambda *_: maps.append(capture.mean()))
        try:
            yield maps
        finally:
            handle.remove()


@dataclass(frozen=True)
class Turned:
    """Queries or keys of some tokens on their way into attention."""

    raw: Float[Tensor, "batch tokens heads width"]
    """As they enter the norm."""
    normed: Float[Tensor, "batch tokens heads width"]
    """As they leave it."""
    weight: Float[Tensor, " width"]
    """Weight of the norm."""
    eps: float | None
    rotary: Rotary


@dataclass(frozen=True)
class Normed:
    """What entered a norm, and what left it."""

    norm: nn.Module
    raw: Float[Tensor, "batch tokens heads width"]
    out: Float[Tensor, "batch tokens heads width"]

    def part(self, tokens: slice, rotary: Rotary) -> Turned:
        """Some of the tokens; positions are those of the whole sequence, which begins with text."""
        norm = self.norm
        assert isinstance(norm, nn.RMSNorm), "FLUX's"
        cos, sin = (table[len(table) - self.raw.shape[1] :][tokens] for table in rotary)
        return Turned(self.raw[:, tokens], self.out[:, tokens], norm.weight, norm.eps, (cos, sin))


def turned_column_mean(queries: Turned, keys: Turned, sizes: Sequence[int]) -> Float[Tensor, "batch subjects keys"]:
    """`mcpipe.objectives.column_mean` of queries and keys with their positions, which it does not keep."""
    return _TurnedColumnMean.apply(
        queries.normed, keys.normed, queries.raw, keys.raw, queries.weight, keys.weight, *queries.rotary, *keys.rotary,
        (queries.eps, keys.eps), tuple(sizes), best_backend(queries.normed),
    )  # fmt: skip


def attention_received(queries: Turned, keys: Turned, num_references: int) -> Float[Tensor, "batch subjects queries"]:
    """Attention of the image's tokens to each reference, the mean over heads scaled to sum to 1 over the image.

    Args:
        queries: The image's.
        keys: Those of the image, then those of all references, as many for each.
        num_references: Number of references.
    """
    query, key = (rotated(part.normed, part.rotary).transpose(1, 2).float() for part in (queries, keys))
    weights = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1)
    to_references = weights[..., query.shape[2] :].mean(1).unflatten(-1, (num_references, -1)).sum(-1).mT
    return to_references / to_references.sum(-1, keepdim=True)


class _TurnedColumnMean(torch.autograd.Function):
    """Norms and positions are applied again in the backward pass; its gradients are those of the norms' outputs."""

    @staticmethod
    def forward(  # noqa: PLR0913  torch takes no structures
        ctx: Any,  # noqa: ANN401 - torch's
        queries: Tensor,
        keys: Tensor,
        raw_queries: Tensor,
        raw_keys: Tensor,
        query_weight: Tensor,
        key_weight: Tensor,
        query_cos: Tensor,
        query_sin: Tensor,
        key_cos: Tensor,
        key_sin: Tensor,
        eps: tuple[float | None, float | None],
        sizes: tuple[int, ...],
        backend: Backend,
    ) -> Tensor:
        ctx.save_for_backward(
            raw_queries, raw_keys, query_weight, key_weight, query_cos, query_sin, key_cos, key_sin
        )  # fmt: skip
        ctx.eps, ctx.sizes, ctx.backend, ctx.dtype = eps, sizes, backend, queries.dtype
        turned = (rotated(queries, (query_cos, query_sin)), rotated(keys, (key_cos, key_sin)))
        with _full_precision(queries.device.type):
            return WAYS[backend].mean(turned[0].transpose(1, 2), turned[1].transpose(1, 2), sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's
        raw_queries, raw_keys, query_weight, key_weight, *rotary = ctx.saved_tensors
        query_rotary, key_rotary = (rotary[0], rotary[1]), (rotary[2], rotary[3])
        queries = _turned_again(raw_queries, query_weight, ctx.eps[0], query_rotary, ctx.dtype)
        keys = _turned_again(raw_keys, key_weight, ctx.eps[1], key_rotary, ctx.dtype)
        grads = WAYS[ctx.backend].gradient(queries, keys, ctx.sizes, grad)
        return _turned_back(grads[0], query_rotary), _turned_back(grads[1], key_rotary), *[None] * 11


def _full_precision(kind: str) -> AbstractContextManager:
    """Within this context products are not rounded, on a kind of device that would."""
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def _turned_again(raw: Tensor, weight: Tensor, eps: float | None, rotary: Rotary, dtype: torch.dtype) -> Tensor:
    """By heads."""
    return rotated(rms_norm(raw.to(dtype), weight.shape, weight.to(dtype), eps), rotary).transpose(1, 2)


def _turned_back(grad: Tensor, rotary: Rotary) -> Tensor:
    """The gradient before positions were turned in, by tokens: the inverse turn."""
    return rotated(grad.transpose(1, 2), (rotary[0], -rotary[1]))


@torch.no_grad()
def attention_maps(
    network: ReferenceFlux,
    noisy: Float[Tensor, "batch tokens packed"],
    t: Float[Tensor, " batch"],
    conditions: Conditions,
    direction: Direction = "reference_to_image",
) -> Float[Tensor, "batch subjects rows columns"]:
    """Each reference's map over the image's token grid at noise level ``t``; sums to 1."""
    capture = AttentionCapture(network.transformer, network.layout, direction)
    with _not_compiled(network.transformer), capture:
        network(noisy, t, conditions)
        return capture.mean().unflatten(-1, network.layout_of(conditions).image)


@contextmanager
def _not_compiled(transformer: FluxTransformer2DModel) -> Iterator[None]:
    """Within this context blocks run as they are written: compiled ones do not notice new hooks."""
    blocks = (*transformer.transformer_blocks, *transformer.single_transformer_blocks)
    compiled = [block._compiled_call_impl for block in blocks]
    try:
        for block in blocks:
            block._compiled_call_impl = None
        yield
    finally:
        for block, call in zip(blocks, compiled, strict=True):
            block._compiled_call_impl = call
