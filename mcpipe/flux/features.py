"""Hidden states of the image stream after every double block: tokens of the noisy image, means of the references'.

A double block returns its text and its image stream; the latter holds the noisy image's tokens, then those of every
reference. Nothing is kept for a backward pass, and what the network computes is not changed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcpipe.flux.network import ReferenceFlux
from mcpipe.objectives.focus import Norm, match_scores


class MatchScores:
    """Similarity S of every reference and every image token in the latest forward pass, mean over the double blocks."""

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []

    def clear(self) -> None:
        """Forget the blocks of earlier passes."""
        self._blocks.clear()

    def add(self, scores: Float[Tensor, "batch slots tokens"]) -> None:
        """Keep the scores of a block."""
        self._blocks.append(scores)

    def mean(self) -> Float[Tensor, "batch slots tokens"]:
        """S, in [-1, 1] for cosines (FocusDPO, eq. 3)."""
        assert self._blocks, "no forward pass has run within this context"
        return torch.stack(self._blocks).mean(0)


@contextmanager
def recorded_matches(network: ReferenceFlux, norm: Norm) -> Iterator[MatchScores]:
    """Within this context every pass of the network leaves its scores in the object."""
    scores = MatchScores()
    handles = [network.transformer.register_forward_pre_hook(lambda *_: scores.clear())]
    handles += [
        block.register_forward_hook(_scorer(network, norm, scores)) for block in network.transformer.transformer_blocks
    ]
    try:
        yield scores
    finally:
        for handle in handles:
            handle.remove()


def _scorer(
    network: ReferenceFlux, norm: Norm, scores: MatchScores
) -> Callable[[nn.Module, tuple, tuple[Tensor, Tensor]], None]:
    layout = network.layout

    @torch.no_grad()
    def score(_block: nn.Module, _args: tuple, output: tuple[Tensor, Tensor]) -> None:
        image, references = output[1].tensor_split([layout.num_image_tokens], dim=1)
        cls = references.unflatten(1, (-1, layout.num_reference_tokens)).float().mean(2)
        scores.add(match_scores(cls, image, norm))

    return score
