"""One arm's images for every prompt of the benchmark, and the controls beside them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from mcpipe.bench.controls import CONTROLS, TARGETS, ControlKind, control_faces
from mcpipe.core.order import reference_order
from mcpipe.core.params import Params, RecordsPerShard, ShuffleReferences
from mcpipe.core.progress import track
from mcpipe.core.report import Report
from mcpipe.core.schemas.benchmark import GeneratedImage, PairPrompt, PoolFace, PoolThing, RealTarget
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.shards import read_shards, whole_folder, write_shards
from mcpipe.core.texts import CutTexts, cut_facts, recorded_cuts
from mcpipe.execution.parallel import mapped, num_processes
from mcpipe.flux.adapters import AdapterSpec, load_adapter, merge_plain, read_spec
from mcpipe.flux.backbone import FluxPipeline, load_generator
from mcpipe.flux.encoders import decode_latents, encode_pictures
from mcpipe.flux.sampler import Requests, SampleParams, generate, generate_with_attention

BATCH_SIZE = 8
"""Images drawn together; their noise does not depend on it. Of several sizes, so many have the first, then the next."""
References = UInt8[np.ndarray, "N R R 3"]


class ControlParams(Params):
    """Images drawn beside the benchmark's, from the same texts and noise."""

    kinds: list[ControlKind]
    """Controls of `mcpipe.bench.controls`; each takes as long as the images themselves."""
    num_targets: int = Field(ge=0)
    """Largest number of held-out targets that go through the VAE, for the ceiling of Face-Sim."""


class GenerateParams(Params):
    """Settings of the benchmark's images, the same for every arm."""

    sample: SampleParams
    """Steps, guidance, schedule."""
    seed: int
    """Image i starts from the noise of ``seed + i``."""
    shuffle_references: ShuffleReferences
    """Whether the order of an image's references is drawn from its seed instead of being that of the prompt."""
    controls: ControlParams
    records_per_shard: RecordsPerShard


@dataclass(frozen=True)
class Suite:
    """The benchmark's prompts and the generator that answers them."""

    pipeline: FluxPipeline
    spec: AdapterSpec
    prompts: Sequence[PairPrompt]
    pool: Mapping[str, UInt8[np.ndarray, "R R 3"]]
    """Reference by face."""
    params: GenerateParams
    start: int = 0
    """Place of the first prompt in the benchmark."""

    def part(self, places: slice) -> "Suite":
        """The suite of some of the prompts."""
        return replace(self, prompts=self.prompts[places], start=self.start + places.start)

    @property
    def seeds(self) -> list[int]:
        """Seed of each prompt's noise."""
        return [self.params.seed + self.start + i for i in range(len(self.prompts))]

    def orders(self, faces: Sequence[tuple[str, ...]]) -> list[np.ndarray]:
        """Order in which each prompt's references are given to the generator."""
        if not self.params.shuffle_references:
            return [np.arange(len(own)) for own in faces]
        return [reference_order(len(own), seed, 0) for own, seed in zip(faces, self.seeds, strict=True)]

    def references(self, faces: Sequence[tuple[str, ...]]) -> list[References]:
        """References of each prompt in the order in which the generator gets them."""
        return [
            np.stack([self.pool[own[i]] for i in order]) for own, order in zip(faces, self.orders(faces), strict=True)
        ]

    def requests(self, faces: Sequence[tuple[str, ...]]) -> Requests:
        """The prompts' images, to be drawn from the references of some faces."""
        return Requests(
            prompts=[prompt.prompt for prompt in self.prompts],
            references=self.references(faces),
            seeds=self.seeds,
            params=self.params.sample,
            image_size=[self.spec.size_at((self.start + i) // BATCH_SIZE) for i in range(len(self.prompts))],
            batch_size=BATCH_SIZE,
        )

    def images(self) -> Iterator[GeneratedImage]:
        """The prompts' images, each with its references' attention in the order of the prompt's faces."""
        faces = [prompt.names for prompt in self.prompts]
        drawn = generate_with_attention(self.pipeline, self.requests(faces))
        for prompt, seed, order, (image, maps) in zip(self.prompts, self.seeds, self.orders(faces), drawn, strict=True):
            attention = maps[np.argsort(order)]
            yield GeneratedImage(
                key=prompt.key, prompt=prompt.prompt, names=prompt.names, seed=seed, image=image, attention=attention
            )

    def control(self, faces_by_prompt: Sequence[tuple[str, ...]]) -> Iterator[GeneratedImage]:
        """The images drawn from the references of other faces than the prompts'; without any where none are given."""
        own = [prompt.names for prompt in self.prompts]
        hidden = not any(faces_by_prompt)
        requests = self.requests(own if hidden else faces_by_prompt)
        drawn = generate(self.pipeline, requests, hide_references=hidden)
        for prompt, seed, faces, image in zip(self.prompts, self.seeds, faces_by_prompt, drawn, strict=True):
            yield GeneratedImage(key=prompt.key, prompt=prompt.prompt, names=faces, seed=seed, image=image)


@dataclass(frozen=True)
class DrawingJob:
    """Images of an arm, or of a control, that are drawn together."""

    kind: ControlKind | Literal["arm", "targets"]
    """A control, the arm's own images, or held-out targets after the VAE."""
    part: slice
    """Places of their prompts, or of the targets among the held-out samples."""


@dataclass(frozen=True)
class DrawnImages:
    """Images of a batch, and the texts that an encoder cut on the way."""

    images: list[GeneratedImage] | list[RealTarget]
    cut: CutTexts


@dataclass(frozen=True)
class ArmDrawing:
    """Paths and settings of an arm's images."""

    pairs: Path
    samples: Path
    model: Path
    generator: Path
    params: GenerateParams

    def prompts(self) -> list[PairPrompt]:
        """The benchmark's prompts."""
        return list(read_shards(self.pairs / "bench", PairPrompt))

    def pool(self) -> dict[str, UInt8[np.ndarray, "R R 3"]]:
        """Reference by face, or by thing."""
        things = self.pairs / "things"
        pool = read_shards(things, PoolThing) if things.is_dir() else read_shards(self.pairs / "faces", PoolFace)
        return {subject.key: subject.reference for subject in pool}

    def controls(self, prompts: Sequence[PairPrompt], pool: Iterable[str]) -> dict[ControlKind, list[tuple[str, ...]]]:
        """The faces that every control gives to each prompt.

        Raises:
            ValueError: the pool is too small for a control.
        """
        named, names = [prompt.names for prompt in prompts], list(pool)
        return {kind: control_faces(kind, named, names, self.params.seed) for kind in self.params.controls.kinds}

    def load(self) -> Callable[[DrawingJob], DrawnImages]:
        """Load the generator with its adapter; returns the function that draws a batch.

        Raises:
            FileNotFoundError: the arm has no trained adapter.
        """
        pipeline = load_generator(self.generator)
        prompts, pool = self.prompts(), self.pool()
        spec = load_adapter(pipeline, self.model)
        merge_plain(pipeline.transformer)
        suite = Suite(pipeline, spec, prompts, pool, self.params)
        faces = self.controls(prompts, pool)

        def draw(batch: DrawingJob) -> DrawnImages:
            with recorded_cuts() as cut:
                if batch.kind == TARGETS:
                    return DrawnImages(list(real_targets(pipeline, self.samples, batch.part)), cut)
                some = suite.part(batch.part)
                drawn = some.images() if batch.kind == "arm" else some.control(faces[batch.kind][batch.part])
                return DrawnImages(list(drawn), cut)

        return draw


def write_images(
    pairs: Path, samples: Path, model: Path, generator: Path, images: Path, params: GenerateParams
) -> None:
    """Write an image for every prompt in ``pairs/bench``, drawn with the adapter in ``model``, and its controls.

    ``images/controls`` receives a folder per control, and ``targets``: held-out targets of ``samples`` after the VAE.

    Raises:
        FileNotFoundError: the arm has no trained adapter.
        ValueError: references have another size than in training, or the pool is too small for a control.
    """
    arm = ArmDrawing(pairs, samples, model, generator, params)
    prompts, pool, spec = arm.prompts(), arm.pool(), read_spec(model)
    check_size(pool.values(), spec, pairs)
    kinds = list(arm.controls(prompts, pool))
    report = Report("generate", ("diffusers", "transformers", "peft", "torch"))
    report.facts = {**params.sample.model_dump(), "seed": params.seed, "image_size": spec.image_size}
    report.facts |= {"sizes": [f"{width}x{height}" for width, height in spec.sizes]} if spec.sizes else {}
    report.facts |= {"controls": [*kinds]}
    parts = [slice(start, start + BATCH_SIZE) for start in range(0, len(prompts), BATCH_SIZE)]
    batches = [DrawingJob(kind, part) for kind in ("arm", *kinds) for part in parts]
    batches.append(DrawingJob(TARGETS, slice(params.controls.num_targets)))
    cut: CutTexts = {}
    with whole_folder(images) as folder:
        drawn = unpacked(mapped(arm, batches, num_processes(generator, len(batches))), cut)
        counted = track(drawn, len(prompts) * (1 + len(kinds)), f"generate {model.name}")
        write_shards(kept(islice(counted, len(prompts)), report), folder, params.records_per_shard)
        for kind in kinds:
            write_shards(islice(counted, len(prompts)), folder / CONTROLS / kind, params.records_per_shard)
        num_targets = write_shards(counted, folder / CONTROLS / TARGETS, params.records_per_shard)
        report.facts |= {"targets": num_targets, **cut_facts(cut)}
        report.write(folder)


def unpacked(batches: Iterable[DrawnImages], cut: CutTexts) -> Iterator[GeneratedImage | RealTarget]:
    """The images of batches, one after another; ``cut`` learns which texts were cut."""
    for batch in batches:
        for encoder, texts in batch.cut.items():
            cut.setdefault(encoder, set()).update(texts)
        yield from batch.images


def check_size(references: Iterable[np.ndarray], spec: AdapterSpec, pairs: Path) -> None:
    """Make sure that references have the size that the adapter was trained with.

    Raises:
        ValueError: they have another one.
    """
    for reference in references:
        if reference.shape[0] != spec.reference_size:
            raise ValueError(
                f"references in {pairs} are {reference.shape[0]} px wide, but the adapter was trained with "
                f"{spec.reference_size} px; train it again, or set samples.reference_size to that"
            )


def kept(images: Iterator[GeneratedImage | RealTarget], report: Report) -> Iterator[GeneratedImage | RealTarget]:
    """The same images, each counted by the report."""
    for image in images:
        report.keep(image.key)
        yield image


def real_targets(pipeline: FluxPipeline, samples: Path, part: slice) -> Iterator[RealTarget]:
    """Some held-out targets after the VAE, with the references that training would give."""
    held_out = (sample for sample in read_shards(samples, Sample) if sample.split == "val")
    for sample in islice(held_out, part.start, part.stop):
        (image,) = decode_latents(pipeline, encode_pictures(pipeline, sample.target[None]))
        yield RealTarget(key=sample.key, names=sample.names, image=image, references=sample.references)
