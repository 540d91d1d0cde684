"""Training batches from encoded samples.

The samples of a step are a pure function of the seed and the step, and every random draw belongs to a position in
that order. Therefore neither the number of devices nor a restart changes the training data.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mcpipe.core.order import reference_order
from mcpipe.core.schemas.training import EmptyText, EncodedSample
from mcpipe.core.shards import StoredItem, StoredItems, read_shards
from mcpipe.core.sizes import Size
from mcpipe.flux.network import Conditions, padded_references
from mcpipe.flux.tokens import Grid, pack
from mcpipe.objectives.flow import shifted
from mcpipe.train.loop.order import Groups, grouped_index

NUM_IN_MEMORY = 512
"""Samples that each process caches; at full size a sample takes 0.5 MB, or 9 MB with its text embeddings."""

Text = tuple[Float[Tensor, "text_tokens text_width"], Float[Tensor, " pooled_width"]]
"""Embeddings of a text: per token, and pooled."""


@dataclass(frozen=True)
class TrainingSample:
    """One encoded sample as tokens."""

    key: str
    clean: Float[Tensor, "tokens packed"]
    references: Float[Tensor, "subjects reference_tokens packed"]
    masks: Bool[Tensor, "subjects tokens"]
    """Face masks on the token grid."""
    caption: str
    text: Text | None
    """Embeddings of the caption; ``None`` if they were not stored."""
    closeups: "tuple[TrainingSample, ...]" = ()
    """A sample for each person: the target around the face, the person's reference, mask and caption."""
    grid: Grid | None = None
    """Token grid of the image; ``None`` for the network's own."""


class StoredSamples(Sequence[TrainingSample]):
    """Encoded samples, read from their shards on access; the latest ones are cached."""

    def __init__(self, items: Sequence[StoredItem], grids: Sequence[Grid]) -> None:
        """``grids`` are those of the samples' targets."""
        self._items = items
        places: dict[Grid, list[int]] = {}
        for place, grid in enumerate(grids):
            places.setdefault(grid, []).append(place)
        self.groups: Groups = tuple(tuple(places[grid]) for grid in sorted(places))
        """Indices of the samples of every shape."""
        self._read = lru_cache(maxsize=NUM_IN_MEMORY)(self._sample)

    @property
    def keys(self) -> list[str]:
        """Keys of all samples, in order."""
        return [item.key for item in self._items]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._items)

    def __getitem__(self, index: int) -> TrainingSample:  # pyright: ignore[reportIncompatibleMethodOverride] - nobody slices
        """The sample at a place in the order.

        Raises:
            ValueError: its shard is damaged, or it is no encoded sample.
        """
        return self._read(index)

    def _sample(self, index: int) -> TrainingSample:
        return as_tokens(self._items[index].read(EncodedSample))


@dataclass(frozen=True)
class EncodedSet:
    """All encoded samples of a run."""

    train: StoredSamples
    val: StoredSamples
    empty: Text
    """Embeddings of the empty text."""
    image_size: int
    reference_size: int
    """Sides in pixels, of square targets and of references; the same for all samples."""
    encoder: Callable[[str], Text] | None = None
    """Embeds a caption whose embeddings were not stored."""
    sizes: tuple[Size, ...] = ()
    """Widths and heights of the training targets in pixels, where they are not all squares of ``image_size``."""

    def text(self, sample: TrainingSample) -> Text:
        """The embeddings of a sample's caption."""
        if sample.text is not None:
            return sample.text
        assert self.encoder is not None, "samples without embeddings need an encoder"
        return self.encoder(sample.caption)


@dataclass(frozen=True)
class Batch:
    """Samples that go through the network together, with their noise and noise levels."""

    clean: Float[Tensor, "batch tokens packed"]
    noise: Float[Tensor, "batch tokens packed"]
    t: Float[Tensor, " batch"]
    conditions: Conditions
    masks: Bool[Tensor, "batch slots tokens"]
    """Face masks; all false in slots without a reference."""


@dataclass(frozen=True)
class Draws:
    """Parameters of the random draws of a batch."""

    seed: int
    batch_size: int
    shift: float
    """Shift s of the noise levels, which are uniform before it (see `mcpipe.objectives.flow.shifted`)."""
    text_dropout: float
    """Chance of an empty text, in [0, 1]."""
    one_reference: bool
    """Whether a close-up of one of the people, chosen at random, is the target instead of the image of all."""
    shuffle_references: bool = False
    """Whether references change places, together with their masks, from draw to draw."""


def read_encoded(folder: Path) -> EncodedSet:
    """Read the output of the stage ``encode``.

    Raises:
        FileNotFoundError: the output does not exist.
        ValueError: it holds no training sample, or samples of several sizes.
    """
    items: dict[str, list[StoredItem]] = {"train": [], "val": []}
    grids: dict[str, list[Grid]] = {"train": [], "val": []}
    sizes: set[tuple[int, int]] = set()
    targets: set[Size] = set()
    for item in StoredItems((folder, EncodedSample)):
        sample = item.read(EncodedSample)
        items[sample.split].append(item)
        grids[sample.split].append(_grid(sample.masks))
        sizes.add((sample.image_size, sample.reference_size))
        targets.add(_size(sample))
    empty = next(read_shards(folder / "empty", EmptyText))
    if not items["train"]:
        raise ValueError(f"no training samples in {folder}; see the report of the stage samples for what was dropped")
    if len(sizes) > 1:
        raise ValueError(f"the samples in {folder} have several sizes (image, reference): {sorted(sizes)}")
    image_size, reference_size = sizes.pop()
    embeddings = (torch.from_numpy(empty.prompt_embeds), torch.from_numpy(empty.pooled))
    train, val = (StoredSamples(items[split], grids[split]) for split in ("train", "val"))
    shapes = tuple(sorted(targets)) if targets != {(image_size, image_size)} else ()
    return EncodedSet(train, val, embeddings, image_size, reference_size, sizes=shapes)


def _grid(masks: Bool[np.ndarray, "subjects rows columns"]) -> Grid:
    rows, columns = masks.shape[1:]
    return rows, columns


def _size(sample: EncodedSample) -> Size:
    """Width and height of a sample's target in pixels: a token has the same number of them there and in a close-up."""
    token_px = sample.image_size // sample.closeup_masks.shape[1]
    rows, columns = _grid(sample.masks)
    return columns * token_px, rows * token_px


def generator_at(seed: int, position: int) -> torch.Generator:
    """The random generator of one position."""
    state = np.random.SeedSequence((seed, position)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> 1))


@dataclass(frozen=True)
class Share:
    """One process's share of every step, and the number of batches it is divided into."""

    process: int
    num_processes: int
    num_batches: int

    def positions(self, step: int, batch_size: int) -> list[range]:
        """Positions of the samples of each batch of this process.

        Raises:
            ValueError: the samples of a step cannot be divided equally.
        """
        num_batches = self.num_processes * self.num_batches
        size, rest = divmod(batch_size, num_batches)
        if rest:
            raise ValueError(
                f"a step of {batch_size} samples cannot be divided into {self.num_batches} equal batches on each of "
                f"{self.num_processes} processes; change MCPIPE_ACCUMULATION_STEPS or the number of processes"
            )
        # What all processes take at the same time stands together, as one process alone would take it.
        starts = [step * batch_size + (i * self.num_processes + self.process) * size for i in range(self.num_batches)]
        return [range(start, start + size) for start in starts]


def batch_at(
    data: EncodedSet, samples: Sequence[TrainingSample], draws: Draws, positions: range, device: torch.device
) -> Batch:
    """The batch of the samples at some positions."""
    return collate([draw(data, samples, draws, position) for position in positions], device)


def draw(
    data: EncodedSet, samples: Sequence[TrainingSample], draws: Draws, position: int
) -> tuple[TrainingSample, Tensor, Tensor]:
    """The sample at a position with its references and text as drawn there, its noise and its noise level t."""
    groups = samples.groups if isinstance(samples, StoredSamples) else (tuple(range(len(samples))),)
    sample = samples[grouped_index(groups, draws.seed, draws.batch_size, position)]
    generator = generator_at(draws.seed, position)
    target = sample.closeups[0] if draws.one_reference else sample  # close-ups have one shape
    noise = torch.randn(target.clean.shape, generator=generator)
    chances = torch.rand(3, generator=generator)
    if draws.one_reference:
        sample = sample.closeups[int(chances[0] * len(sample.closeups))]
    references, masks = sample.references, sample.masks
    if draws.shuffle_references:
        order = torch.from_numpy(reference_order(len(references), draws.seed, position))
        references, masks = references[order], masks[order]
    text = data.empty if chances[1] < draws.text_dropout else data.text(sample)
    t = shifted(chances[2:], draws.shift)[0]
    return replace(sample, references=references, masks=masks, text=text), noise, t


def collate(drawn: Sequence[tuple[TrainingSample, Tensor, Tensor]], device: torch.device) -> Batch:
    """Several draws of one shape as one batch; references are padded to the largest number."""
    samples = [sample for sample, _, _ in drawn]
    assert len({sample.grid for sample in samples}) == 1, "a batch has one shape"
    references, present = padded_references([sample.references for sample in samples])
    masks, _ = padded_references([sample.masks[..., None] for sample in samples])
    texts = [sample.text for sample in samples if sample.text is not None]
    assert len(texts) == len(samples), "a draw has its text"
    conditions = Conditions(
        torch.stack([tokens for tokens, _ in texts]).to(device),
        torch.stack([pooled for _, pooled in texts]).to(device),
        references.to(device),
        present.to(device),
        grid=samples[0].grid,
    )
    return Batch(
        torch.stack([sample.clean for sample in samples]).to(device),
        torch.stack([noise for _, noise, _ in drawn]).to(device),
        torch.stack([t for _, _, t in drawn]).to(device),
        conditions,
        masks[..., 0].to(device),
    )


def as_tokens(sample: EncodedSample) -> TrainingSample:
    """A sample with its latents and masks as sequences of tokens."""
    references = pack(torch.from_numpy(sample.reference_latents))
    num = len(references)
    closeups = pack(torch.from_numpy(sample.closeup_latents))
    closeup_masks = torch.from_numpy(sample.closeup_masks).flatten(1)
    captions, texts = (sample.caption, *sample.closeup_captions), _texts(sample, num)
    alone = [
        TrainingSample(
            f"{sample.key}/{person}", closeups[person], references[[person]], closeup_masks[[person]],
            captions[person + 1], texts[person + 1], grid=_grid(sample.closeup_masks),
        )
        for person in range(num)
    ]  # fmt: skip
    return TrainingSample(
        sample.key,
        pack(torch.from_numpy(sample.latents)),
        references,
        torch.from_numpy(sample.masks).flatten(1),
        captions[0],
        texts[0],
        tuple(alone),
        _grid(sample.masks),
    )


def _texts(sample: EncodedSample, num: int) -> list[Text | None]:
    """Embeddings of the caption and of those of ``num`` close-ups; ``None`` where they were not stored."""
    if sample.prompt_embeds is None or sample.pooled is None:
        return [None] * (num + 1)
    assert sample.closeup_prompt_embeds is not None, "all are stored, or none"
    assert sample.closeup_pooled is not None, "all are stored, or none"
    tokens = [sample.prompt_embeds, *sample.closeup_prompt_embeds]
    pooled = [sample.pooled, *sample.closeup_pooled]
    return [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in zip(tokens, pooled, strict=True)]
