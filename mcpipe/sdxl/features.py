"""Tokens of noisy image and references where an IP-Adapter lets them meet: its decoupled cross-attention.

The paper matches tokens of the noisy image and of a reference in every multimodal attention layer. In SDXL the self-
attention sees no reference; the layers that see both are the cross-attentions, whose queries are the noisy image's
tokens and whose keys are the reference's, in one space. Their scores, brought to the grid of tokens, are averaged over
all such layers. Nothing is kept for a backward pass, and what the network computes is not changed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from mcpipe.flux.features import MatchScores
from mcpipe.flux.tokens import Grid
from mcpipe.objectives.focus import Norm, match_scores
from mcpipe.sdxl.backbone import UNet2DConditionModel


@contextmanager
def recorded_matches(
    unet: UNet2DConditionModel, grid: Grid, norm: Norm, num_images: int | None = None
) -> Iterator[MatchScores]:
    """Within this context every pass leaves in the object its scores on a grid of tokens.

    ``num_images`` is the number of images at the front of a batch that count; ``None`` for all.
    """
    scores = MatchScores()
    handles = [unet.register_forward_pre_hook(lambda *_: scores.clear())]
    for name, module in unet.named_modules():
        if name.endswith(".attn2"):
            handles += CrossAttention(grid, norm, num_images, scores).watch(module)
    try:
        yield scores
    finally:
        for handle in handles:
            handle.remove()


class CrossAttention:
    """Queries and reference keys of one layer, until it ends."""

    def __init__(self, grid: Grid, norm: Norm, num_images: int | None, scores: MatchScores) -> None:
        self._grid, self._num_images, self._scores = grid, num_images, scores
        self._norm: Norm = norm
        self._queries: Tensor | None = None
        self._means: list[Tensor] = []

    def watch(self, layer: nn.Module) -> list[RemovableHandle]:
        """Hook onto a cross-attention with one IP-Adapter."""
        queries = layer.get_submodule("to_q").register_forward_hook(self._take_queries)
        keys = layer.get_submodule("processor.to_k_ip.0").register_forward_hook(self._take_keys)
        return [queries, keys, layer.register_forward_hook(self._score)]

    def _take_queries(self, _layer: nn.Module, _args: tuple, queries: Tensor) -> None:
        self._queries = queries.detach()[: self._num_images]

    def _take_keys(self, _layer: nn.Module, _args: tuple, keys: Tensor) -> None:
        """The processor asks for the keys of one reference after the other."""
        self._means.append(keys.detach()[: self._num_images].float().mean(1))

    @torch.no_grad()
    def _score(self, *_: object) -> None:
        assert self._queries is not None, "queries come before the layer's end"
        by_token = match_scores(torch.stack(self._means, 1), self._queries, self._norm)
        self._scores.add(resized(by_token, self._grid))
        self._queries, self._means = None, []


def resized(scores: Float[Tensor, "batch slots own_tokens"], grid: Grid) -> Float[Tensor, "batch slots tokens"]:
    """Scores on a layer's own grid, which has the proportions of the tokens', interpolated to theirs."""
    rows = round((scores.shape[-1] * grid[0] / grid[1]) ** 0.5)
    fields = scores.unflatten(-1, (rows, -1))
    return functional.interpolate(fields, size=grid, mode="bilinear", align_corners=False).flatten(2)
