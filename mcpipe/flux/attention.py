"""Where each reference looks in the picture: attention maps of the double blocks, taken beside the running network.

In a double block, ``attn.norm_q`` and ``attn.norm_k`` see exactly the queries and keys of the image stream. Hooks
there and on ``attn`` itself rebuild softmax(q_reference k_picture / sqrt(d)) over the picture's tokens (paper, eq.
4). The attention that the network computes is not touched, whatever kernel runs it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcpipe.flux.backbone import FluxTransformer2DModel, rotated
from mcpipe.flux.network import Conditions, ReferenceFlux
from mcpipe.flux.tokens import Layout
from mcpipe.objectives.column_mean import column_mean


class AttentionCapture:
    """Maps of the latest forward pass; a context, outside of which nothing is recorded.

    Under gradient checkpointing it must stay open until after the backward pass, which runs the blocks again. Compiled
    blocks are recorded if they were compiled within it.
    """

    def __init__(self, transformer: FluxTransformer2DModel, layout: Layout) -> None:
        self._transformer = transformer
        self._layout = layout
        self._queries: dict[int, Tensor] = {}
        self._keys: dict[int, Tensor] = {}
        self._maps: dict[int, Tensor] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> "AttentionCapture":
        for index, block in enumerate(self._transformer.transformer_blocks):
            self._handles += [
                block.attn.norm_q.register_forward_hook(_stored(self._queries, index)),
                block.attn.norm_k.register_forward_hook(_stored(self._keys, index)),
                block.attn.register_forward_hook(self._mapped(index), with_kwargs=True),
            ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._maps.clear()

    def mean(self) -> Float[Tensor, "batch subjects tokens"]:
        """Each reference's attention to the picture, averaged over its tokens, heads and double blocks; sums to 1."""
        assert self._maps, "no forward pass has run within this context"
        return torch.stack([self._maps[index] for index in sorted(self._maps)]).mean(0)

    def _mapped(self, index: int) -> Callable[[nn.Module, tuple, dict, object], None]:
        def store(_module: nn.Module, _args: tuple, call: dict, _output: object) -> None:
            queries, keys = self._queries.pop(index), self._keys.pop(index)
            cos, sin = call["image_rotary_emb"]
            picture = self._layout.num_image_tokens
            num_text = cos.shape[0] - queries.shape[1]
            ours, theirs = slice(num_text, num_text + picture), slice(num_text + picture, None)
            num_subjects = (queries.shape[1] - picture) // self._layout.num_reference_tokens
            self._maps[index] = column_mean(
                rotated(queries[:, picture:], (cos[theirs], sin[theirs])),
                rotated(keys[:, :picture], (cos[ours], sin[ours])),
                [self._layout.num_reference_tokens] * num_subjects,
            )

        return store


def _stored(place: dict[int, Tensor], index: int) -> Callable[[nn.Module, tuple, Tensor], None]:
    def store(_module: nn.Module, _args: tuple, output: Tensor) -> None:
        place[index] = output

    return store


@torch.no_grad()
def attention_maps(
    network: ReferenceFlux,
    noisy: Float[Tensor, "batch tokens packed"],
    t: Float[Tensor, " batch"],
    conditions: Conditions,
) -> Float[Tensor, "batch subjects rows columns"]:
    """Each reference's map over the picture's token grid at noise level ``t``; sums to 1."""
    with _not_compiled(network.transformer), AttentionCapture(network.transformer, network.layout) as capture:
        network(noisy, t, conditions)
        return capture.mean().unflatten(-1, network.layout.image)


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
