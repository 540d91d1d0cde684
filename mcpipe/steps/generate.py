"""One arm's pictures for every prompt of the benchmark."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mcpipe.core.order import reference_order
from mcpipe.core.params import Params, RecordsPerShard
from mcpipe.core.progress import track
from mcpipe.core.report import Report
from mcpipe.core.schemas.benchmark import GeneratedImage, PairPrompt, PoolFace
from mcpipe.core.shards import read_shards, whole_folder, write_shards
from mcpipe.core.texts import cut_facts, recorded_cuts
from mcpipe.flux.adapters import AdapterSpec, load_adapter
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.sampler import SampleParams, generate

BATCH_SIZE = 8
"""Pictures drawn together; their noise does not depend on it."""


class GenerateParams(Params):
    """How the benchmark's pictures are drawn, the same for every arm."""

    sample: SampleParams
    """Steps, guidance, schedule."""
    seed: int
    """Picture i starts from the noise of ``seed + i``."""
    shuffle_references: bool
    """Whether the order of a picture's references is drawn from its seed instead of being that of the prompt."""
    records_per_shard: RecordsPerShard


def write_images(pairs: Path, model: Path, generator: Path, images: Path, params: GenerateParams) -> None:
    """Write a picture for every prompt in ``pairs/bench``, drawn with the adapter in ``model``.

    Raises:
        FileNotFoundError: the arm has no trained adapter.
        ValueError: references have another size than in training.
    """
    prompts = list(read_shards(pairs / "bench", PairPrompt))
    pool = {face.key: face.reference for face in read_shards(pairs / "faces", PoolFace)}
    pipeline = load_generator(generator)
    spec = load_adapter(pipeline, model)
    references = [np.stack([pool[face] for face in prompt.faces]) for prompt in prompts]
    check_size(references, spec, pairs)
    seeds = [params.seed + i for i in range(len(prompts))]
    if params.shuffle_references:
        orders = [reference_order(len(of_one), seed, 0) for of_one, seed in zip(references, seeds, strict=True)]
        references = [of_one[order] for of_one, order in zip(references, orders, strict=True)]
    pictures = generate(
        pipeline,
        [prompt.prompt for prompt in prompts],
        references,
        seeds,
        params.sample,
        image_size=spec.image_size,
        batch_size=BATCH_SIZE,
    )
    report = Report("generate", ("diffusers", "transformers", "peft", "torch"))
    report.facts = {**params.sample.model_dump(), "seed": params.seed, "image_size": spec.image_size}
    with whole_folder(images) as folder, recorded_cuts() as cut:
        drawn = track(records(prompts, seeds, pictures, report), len(prompts), f"generate {model.name}")
        write_shards(drawn, folder, params.records_per_shard)
        report.facts |= cut_facts(cut)
        report.write(folder)


def check_size(references: Sequence[np.ndarray], spec: AdapterSpec, pairs: Path) -> None:
    """Make sure that references have the size that the adapter was trained with.

    Raises:
        ValueError: they have another one.
    """
    for pictures in references:
        if pictures.shape[1] != spec.reference_size:
            raise ValueError(
                f"references in {pairs} are {pictures.shape[1]} px wide, but the adapter was trained with "
                f"{spec.reference_size} px; train it again, or set samples.reference_size to that"
            )


def records(
    prompts: Sequence[PairPrompt], seeds: Sequence[int], pictures: Iterator[np.ndarray], report: Report
) -> Iterator[GeneratedImage]:
    """Every picture with the prompt, the faces and the seed that it came from."""
    for prompt, seed, picture in zip(prompts, seeds, pictures, strict=True):
        report.keep(prompt.key)
        yield GeneratedImage(key=prompt.key, prompt=prompt.prompt, faces=prompt.faces, seed=seed, image=picture)
