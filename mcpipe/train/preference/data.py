"""Batches of pairs; as in `mcpipe.train.loop.data` every draw belongs to a position, so that runs can be resumed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mcpipe.core.order import reference_order
from mcpipe.core.shards import StoredItem, StoredItems
from mcpipe.flux.network import Conditions, padded_references
from mcpipe.flux.tokens import pack
from mcpipe.objectives.flow import shifted
from mcpipe.sdxl.network import RegionConditions, regions_of
from mcpipe.train.loop.data import NUM_IN_MEMORY, generator_at
from mcpipe.train.loop.order import sample_index
from mcpipe.train.preference.records import EncodedPair, SdxlPair

Form = type[EncodedPair] | type[SdxlPair]
"""What pairs are encoded for."""
Levels = Callable[[Float[Tensor, " batch"]], Float[Tensor, " batch"]]
"""Noise levels t of uniform numbers in [0, 1)."""


@dataclass(frozen=True)
class TokenPair:
    """One pair as sequences of tokens."""

    winner: Float[Tensor, "tokens packed"]
    loser: Float[Tensor, "tokens packed"]
    references: Float[Tensor, "subjects reference_tokens reference_width"]
    """Latents for FLUX, features of the image encoder for SDXL."""
    prior: Bool[Tensor, "subjects tokens"]
    detail: Float[Tensor, " tokens"]
    quality: Float[Tensor, " tokens"]
    text: Float[Tensor, "text_tokens text_width"]
    pooled: Float[Tensor, " pooled_width"]


@dataclass(frozen=True)
class PairBatch:
    """Pairs that go through the network together; both images of a pair have one noise and one noise level."""

    winner: Float[Tensor, "batch tokens packed"]
    loser: Float[Tensor, "batch tokens packed"]
    noise: Float[Tensor, "batch tokens packed"]
    t: Float[Tensor, " batch"]
    conditions: Conditions | RegionConditions
    """Text and references, the same for both images."""
    prior: Bool[Tensor, "batch slots tokens"]
    """M_prior of every subject; all false in slots without a reference."""
    detail: Float[Tensor, "batch tokens"]
    quality: Float[Tensor, "batch tokens"]


class StoredPairs(Sequence[TokenPair]):
    """Encoded pairs, read from their shards on access; the latest ones are cached."""

    def __init__(self, items: Sequence[StoredItem], form: Form = EncodedPair) -> None:
        self._items, self.form = items, form
        self._read = lru_cache(maxsize=NUM_IN_MEMORY)(self._pair)
        first = items[0].read(form)
        self.sizes = first.image_size, first.reference_size
        """Sides in pixels of images and references; the same for all pairs."""

    @property
    def keys(self) -> list[str]:
        """Keys of all pairs, in order."""
        return [item.key for item in self._items]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self._items)

    def __getitem__(self, index: int) -> TokenPair:  # pyright: ignore[reportIncompatibleMethodOverride] - nobody slices
        """The pair at a place in the order.

        Raises:
            ValueError: its shard is damaged, or its sizes are not those of the first pair.
        """
        return self._read(index)

    def at(self, place: int) -> "StoredPairs":
        """The pair at a place alone."""
        return StoredPairs(self._items[place : place + 1], self.form)

    def _pair(self, index: int) -> TokenPair:
        pair = self._items[index].read(self.form)
        if (sizes := (pair.image_size, pair.reference_size)) != self.sizes:
            raise ValueError(f"pair {pair.key} has sizes {sizes} where the first pair has {self.sizes}; run dip again")
        winner, loser = (pack(torch.from_numpy(each)) for each in (pair.winner, pair.loser))
        if isinstance(pair, EncodedPair):
            references = pack(torch.from_numpy(pair.references))
        else:
            references = torch.from_numpy(pair.features)
        prior, detail, quality = (torch.from_numpy(each) for each in (pair.masks, pair.detail, pair.quality))
        text, pooled = torch.from_numpy(pair.prompt_embeds), torch.from_numpy(pair.pooled)
        return TokenPair(winner, loser, references, prior.flatten(1), detail.flatten(), quality.flatten(), text, pooled)


def read_pairs(folder: Path, form: Form = EncodedPair) -> StoredPairs:
    """Read the output of the stage ``encode`` of the branch, pairs for FLUX or for SDXL.

    Raises:
        FileNotFoundError: the output does not exist.
        ValueError: it holds no pair.
    """
    items = list(StoredItems((folder, form)))
    if not items:
        raise ValueError(f"no pairs in {folder}; see the report of the stage dip for why they were dropped")
    return StoredPairs(items, form)


@dataclass(frozen=True)
class PairDraws:
    """Parameters of the random draws of a batch."""

    seed: int
    shift: float
    """Shift s of the noise levels, which are uniform before it."""
    shuffle_references: bool
    levels: Levels | None = None
    """Other noise levels than those of ``shift``: a scheduler's."""

    def level(self, uniform: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The noise level of a uniform number."""
        return shifted(uniform, self.shift) if self.levels is None else self.levels(uniform)


def pair_batch(pairs: StoredPairs, draws: PairDraws, positions: range, device: torch.device) -> PairBatch:
    """The batch of the pairs at some positions of the endless order."""
    drawn = [draw_pair(pairs, draws, position) for position in positions]
    chosen = [pair for pair, _, _ in drawn]
    references, present = padded_references([pair.references for pair in chosen])
    prior, _ = padded_references([pair.prior[..., None] for pair in chosen])
    text, pooled = (torch.stack(each) for each in zip(*((pair.text, pair.pooled) for pair in chosen), strict=True))
    if pairs.form is EncodedPair:
        conditions = Conditions(text, pooled, references, present).to(device)
    else:
        conditions = RegionConditions(text, pooled, references, regions_of(prior[..., 0], present)).to(device)
    parts = [
        [pair.winner for pair in chosen], [pair.loser for pair in chosen], [noise for _, noise, _ in drawn],
        [t for _, _, t in drawn], [pair.detail for pair in chosen], [pair.quality for pair in chosen],
    ]  # fmt: skip
    winner, loser, noise, t, detail, quality = (torch.stack(part).to(device) for part in parts)
    return PairBatch(winner, loser, noise, t, conditions, prior[..., 0].to(device), detail, quality)


def draw_pair(pairs: StoredPairs, draws: PairDraws, position: int) -> tuple[TokenPair, Tensor, Tensor]:
    """The pair at a position, its noise and its noise level t."""
    pair = pairs[sample_index(len(pairs), draws.seed, position)]
    generator = generator_at(draws.seed, position)
    noise = torch.randn(pair.winner.shape, generator=generator)
    t = draws.level(torch.rand(1, generator=generator))[0]
    if draws.shuffle_references:
        order = torch.from_numpy(reference_order(len(pair.references), draws.seed, position))
        pair = TokenPair(**vars(pair) | {"references": pair.references[order], "prior": pair.prior[order]})
    return pair, noise, t
