"""One SDXL arm's images for every prompt of the benchmark, and the controls beside them.

A stock pipeline of diffusers draws with the IP-Adapter and the arm's LoRA (`mcpipe.steps.sdxl_drawing`). The first
person whom a prompt names stands on the left.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import UInt8
from pydantic import Field

from mcpipe.bench.controls import CONTROLS, TARGETS, control_faces
from mcpipe.core.params import Params, RecordsPerShard, TakenFrom
from mcpipe.core.progress import track
from mcpipe.core.report import Report
from mcpipe.core.schemas.benchmark import GeneratedImage, PairPrompt, PoolFace, RealTarget
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.shards import read_shards, whole_folder, write_shards
from mcpipe.flux.adapters import PLAIN_FILE
from mcpipe.sdxl.backbone import StableDiffusionXLPipeline
from mcpipe.sdxl.encoders import encode_pictures
from mcpipe.steps.generate import ControlParams
from mcpipe.steps.sdxl_drawing import SdxlDrawing, SdxlRequest, as_bytes, drawn_image
from mcpipe.steps.sdxl_files import SdxlFiles


class SdxlDrawParams(Params):
    """Settings of the benchmark's images, the same for every arm."""

    num_steps: int = Field(ge=1)
    """Steps of the pipeline's scheduler."""
    guidance: float = Field(ge=1)
    """Guidance scale; at 1 nothing is drawn without text and references."""
    controls: ControlParams
    seed: Annotated[int, Field(ge=0), TakenFrom("generate.seed")]
    """Image i starts from the noise of ``seed + i``."""
    image_size: Annotated[int, Field(gt=0), TakenFrom("samples.image_size")]
    """Side of an image in pixels."""
    records_per_shard: RecordsPerShard


@dataclass(frozen=True)
class SdxlArm:
    """The backbone and what was trained on it."""

    files: SdxlFiles
    lora: Path | None
    """Folder of the LoRA; ``None`` for the start."""

    def load(self) -> StableDiffusionXLPipeline:
        """The stock pipeline, ready to draw.

        Raises:
            FileNotFoundError: a part is missing.
            ValueError: a part is damaged or of another kind.
        """
        if self.lora is not None and not (self.lora / PLAIN_FILE).is_file():
            raise FileNotFoundError(f"no {self.lora / PLAIN_FILE}; has the stage that trains this arm run?")
        pipeline = self.files.load()
        pipeline.vae.to(pipeline.unet.dtype)  # the stock pipeline converts nothing between the two
        if self.lora is not None:
            pipeline.load_lora_weights(str(self.lora), weight_name=PLAIN_FILE, local_files_only=True)
        return pipeline


@dataclass(frozen=True)
class SdxlSuite:
    """A pipeline and what it draws."""

    pipeline: StableDiffusionXLPipeline
    prompts: Sequence[PairPrompt]
    pool: Mapping[str, UInt8[np.ndarray, "R R 3"]]
    """Reference by face."""
    params: SdxlDrawParams

    def images(self, faces_by_prompt: Sequence[tuple[str, ...]]) -> Iterator[GeneratedImage]:
        """An image per prompt from the references of some faces; where none are given, from the text alone."""
        params, blind = self.params, not any(faces_by_prompt)
        drawing = SdxlDrawing(params.image_size, params.num_steps, params.guidance)
        for seed, (prompt, faces) in enumerate(zip(self.prompts, faces_by_prompt, strict=True), params.seed):
            references = [self.pool[face] for face in faces or prompt.names]
            image = drawn_image(self.pipeline, SdxlRequest(prompt.prompt, references, seed, blind), drawing)
            yield GeneratedImage(key=prompt.key, prompt=prompt.prompt, names=faces, seed=seed, image=image)

    @torch.no_grad()
    def targets(self, samples: Path) -> Iterator[RealTarget]:
        """Some held-out targets after the VAE, with the references that training would give."""
        vae = self.pipeline.vae
        held_out = (sample for sample in read_shards(samples, Sample) if sample.split == "val")
        for sample in islice(held_out, self.params.controls.num_targets):
            latents = encode_pictures(self.pipeline, sample.target[None]) / vae.config.scaling_factor
            rebuilt = self.pipeline.image_processor.postprocess(vae.decode(latents).sample, output_type="np")
            image = as_bytes(np.asarray(rebuilt)[0])
            yield RealTarget(key=sample.key, names=sample.names, image=image, references=sample.references)


def write_sdxl_images(pairs: Path, samples: Path, arm: SdxlArm, images: Path, params: SdxlDrawParams) -> None:
    """Write an image for every prompt in ``pairs/bench`` and, below ``images/controls``, its controls.

    Raises:
        FileNotFoundError: an input is missing.
        ValueError: a part of the backbone is damaged, or the pool is too small for a control.
    """
    prompts = list(read_shards(pairs / "bench", PairPrompt))
    pool = {face.key: face.reference for face in read_shards(pairs / "faces", PoolFace)}
    named = [prompt.names for prompt in prompts]
    controls = {kind: control_faces(kind, named, list(pool), params.seed) for kind in params.controls.kinds}
    suite = SdxlSuite(arm.load(), prompts, pool, params)
    report = Report("generate", ("diffusers", "transformers", "peft", "torch"))
    report.facts = {"num_steps": params.num_steps, "guidance": params.guidance, "seed": params.seed}
    report.facts |= {"image_size": params.image_size, "controls": [*controls]}
    with whole_folder(images) as folder:
        drawn = track(_kept(suite.images(named), report), len(prompts), f"draw {images.name}")
        write_shards(drawn, folder, params.records_per_shard)
        for kind, faces in controls.items():
            beside = track(suite.images(faces), len(prompts), f"draw {images.name}, {kind}")
            write_shards(beside, folder / CONTROLS / kind, params.records_per_shard)
        report.facts |= {
            "targets": write_shards(suite.targets(samples), folder / CONTROLS / TARGETS, params.records_per_shard)
        }
        report.write(folder)


def _kept(images: Iterable[GeneratedImage], report: Report) -> Iterator[GeneratedImage]:
    for image in images:
        report.keep(image.key)
        yield image
