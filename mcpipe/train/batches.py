"""Training batches from encoded samples.

Which samples a step sees is a pure function of the seed and the step, and every random draw belongs to a position in
that order: neither the number of devices nor a restart changes what is trained on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mcpipe.flux.network import Conditions, padded_references
from mcpipe.flux.tokens import pack
from mcpipe.objectives.flow import shifted
from mcpipe.records import Record
from mcpipe.shards import read_shards


@dataclass(frozen=True)
class Sample:
    """One encoded sample as tokens."""

    key: str
    clean: Float[Tensor, "tokens packed"]
    references: Float[Tensor, "subjects reference_tokens packed"]
    masks: Bool[Tensor, "subjects tokens"]
    """Faces on the token grid."""
    text: Float[Tensor, "text_tokens text_width"]
    pooled: Float[Tensor, " pooled_width"]


@dataclass(frozen=True)
class EncodedSet:
    """All encoded samples of a run, in memory."""

    train: list[Sample]
    val: list[Sample]
    empty: tuple[Float[Tensor, "text_tokens text_width"], Float[Tensor, " pooled_width"]]
    """Embeddings of the empty text."""
    image_size: int
    reference_size: int
    """Sides in pixels; the same for all samples."""


@dataclass(frozen=True)
class Batch:
    """One step's samples, noise and noise levels."""

    clean: Float[Tensor, "batch tokens packed"]
    noise: Float[Tensor, "batch tokens packed"]
    t: Float[Tensor, " batch"]
    conditions: Conditions
    masks: Bool[Tensor, "batch slots tokens"]
    """All false in slots without a reference."""


@dataclass(frozen=True)
class Draws:
    """How batches are drawn."""

    seed: int
    batch_size: int
    shift: float
    """Noise levels are uniform, then shifted (see `mcpipe.objectives.flow.shifted`)."""
    text_dropout: float
    """Chance of an empty text, in [0, 1]."""
    one_reference: bool
    """Show one of the people, chosen at random, instead of all."""


def read_encoded(folder: Path) -> EncodedSet:
    """The output of the stage ``encode``.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it holds no training sample, or samples of several sizes.
    """
    records = list(read_shards(folder))
    empty = next(read_shards(folder / "empty")).arrays
    samples = {split: [_sample(r) for r in records if r.meta["split"] == split] for split in ("train", "val")}
    sizes = {(_size(record, "image_size"), _size(record, "reference_size")) for record in records}
    if not samples["train"]:
        raise ValueError(f"no training samples in {folder}; see the report of the stage samples for what was dropped")
    if len(sizes) > 1:
        raise ValueError(f"the samples in {folder} have several sizes (image, reference): {sorted(sizes)}")
    image_size, reference_size = sizes.pop()
    embeddings = (torch.from_numpy(empty["prompt_embeds"]), torch.from_numpy(empty["pooled"]))
    return EncodedSet(samples["train"], samples["val"], embeddings, image_size, reference_size)


def sample_index(num_samples: int, seed: int, position: int) -> int:
    """The sample at a position of the endless order: a new permutation in every epoch."""
    epoch, place = divmod(position, num_samples)
    return int(np.random.default_rng((seed, epoch)).permutation(num_samples)[place])


def generator_at(seed: int, position: int) -> torch.Generator:
    """The source of all randomness of one position."""
    state = np.random.SeedSequence((seed, position)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> 1))


def batches(
    data: EncodedSet, samples: Sequence[Sample], draws: Draws, steps: range, device: torch.device
) -> Iterator[Batch]:
    """The batches of some steps."""
    for step in steps:
        positions = range(step * draws.batch_size, (step + 1) * draws.batch_size)
        yield collate([draw(data, samples, draws, position) for position in positions], device)


def draw(data: EncodedSet, samples: Sequence[Sample], draws: Draws, position: int) -> tuple[Sample, Tensor, Tensor]:
    """The sample at a position as it is shown there, its noise and its noise level."""
    sample = samples[sample_index(len(samples), draws.seed, position)]
    generator = generator_at(draws.seed, position)
    noise = torch.randn(sample.clean.shape, generator=generator)
    chances = torch.rand(3, generator=generator)
    references, masks = sample.references, sample.masks
    if draws.one_reference:
        chosen = int(chances[0] * len(references))
        references, masks = references[chosen : chosen + 1], masks[chosen : chosen + 1]
    text, pooled = data.empty if chances[1] < draws.text_dropout else (sample.text, sample.pooled)
    t = shifted(chances[2:], draws.shift)[0]
    return Sample(sample.key, sample.clean, references, masks, text, pooled), noise, t


def collate(drawn: Sequence[tuple[Sample, Tensor, Tensor]], device: torch.device) -> Batch:
    """Several draws as one batch; people are padded to the largest number."""
    samples = [sample for sample, _, _ in drawn]
    references, present = padded_references([sample.references for sample in samples])
    masks, _ = padded_references([sample.masks[..., None] for sample in samples])
    conditions = Conditions(
        torch.stack([sample.text for sample in samples]).to(device),
        torch.stack([sample.pooled for sample in samples]).to(device),
        references.to(device),
        present.to(device),
    )
    return Batch(
        torch.stack([sample.clean for sample in samples]).to(device),
        torch.stack([noise for _, noise, _ in drawn]).to(device),
        torch.stack([t for _, _, t in drawn]).to(device),
        conditions,
        masks[..., 0].to(device),
    )


def _size(record: Record, name: str) -> int:
    size = record.meta.get(name)
    if not isinstance(size, int):
        raise TypeError(f"encoded sample {record.key}: {name!r} should be a number of pixels, found {size!r}")
    return size


def _sample(record: Record) -> Sample:
    arrays = {name: torch.from_numpy(array) for name, array in record.arrays.items()}
    return Sample(
        record.key,
        pack(arrays["latents"]),
        pack(arrays["reference_latents"]),
        arrays["face_masks"].flatten(1),
        arrays["prompt_embeds"],
        arrays["pooled"],
    )
