"""Draws what a request asks for: per arm an image, the attention map and the Face-Sim of each reference."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import nn

from mcpipe.bench.portraits import Portrait
from mcpipe.cli.demo.request import BASE, DemoRequest
from mcpipe.core.records import RejectionError
from mcpipe.core.rounding import cosines
from mcpipe.core.schemas.benchmark import PoolFace
from mcpipe.flux.adapters import AdapterSpec, add_adapter
from mcpipe.flux.backbone import load_generator
from mcpipe.models.protocols import FaceAnalyser
from mcpipe.objectives.reward import matched_similarity
from mcpipe.pipelines import MultiCrafterPipeline
from mcpipe.report.images import heat_overlay
from mcpipe.steps.pairs import PairsParams, face_of

BASE_SEED = 0
"""Seed of the adapter of rank 1 that stands in for none; it does not change what the generator computes."""

Progress = Callable[[float, str], None]
"""Receives the share that is done, in [0, 1], and what is being done."""


class StoppedError(Exception):
    """The visitor stopped the drawing."""


@dataclass(frozen=True)
class Drawn:
    """The image of one arm."""

    arm: str
    picture: UInt8[np.ndarray, "S S 3"]
    maps: tuple[UInt8[np.ndarray, "S S 3"], ...]
    """The image, lit where each reference looked, averaged over all steps."""
    face_sims: tuple[float, ...]
    """Cosine of each reference and the face assigned to it; 0 without one."""


@dataclass(frozen=True)
class DemoModels:
    """Checkpoints of the page, and the sizes of the base generator's images."""

    generator: Path
    adapters: Mapping[str, Path]
    finder: FaceAnalyser
    pairs: PairsParams
    image_size: int
    shift: float


class Studio:
    """Draws requests; the generator with the last arm's adapter stays loaded."""

    def __init__(self, models: DemoModels) -> None:
        """Keep the models; the generator is loaded with the first image."""
        self._models = models
        self._arm, self._pipeline = "", None

    @property
    def arms(self) -> list[str]:
        """Names of all adapters, then that of the base generator."""
        return [*self._models.adapters, BASE]

    def faces(self, references: Sequence[Path], size: int | None = None) -> list[PoolFace]:
        """The only face of each image, cut to squares of ``size`` pixels, or of the size of training references.

        Raises:
            ValueError: a file is no image, or has no face or several.
        """
        params = self._models.pairs if size is None else self._models.pairs.model_copy(update={"reference_size": size})
        faces = []
        for number, file in enumerate(references, 1):
            try:
                faces.append(face_of(Portrait(file, file.name, "reference"), self._models.finder, params))
            except RejectionError as error:
                reason = error.reason.replace("_", " ")
                raise ValueError(f"reference {number}, {file.name}: {reason} ({error.detail})") from error
        return faces

    def draw(self, request: DemoRequest, progress: Progress, stopped: Callable[[], bool]) -> Iterator[Drawn]:
        """The image of every arm of a request, all from the same noise.

        Raises:
            ValueError: a reference is unusable, an arm is unknown, or its files are damaged.
            StoppedError: ``stopped`` became true, which is asked before every step.
        """
        for arm in request.arms:
            if arm not in self.arms:
                raise ValueError(f"there is no adapter {arm}; there are: {', '.join(self.arms)}")
        self.faces(request.references)  # before the generator is loaded
        for number, arm in enumerate(request.arms):
            progress(number / len(request.arms), f"{arm}: loading")
            pipeline = self._loaded(arm)

            def on_step(done: int, number: int = number, arm: str = arm) -> None:
                if stopped():
                    raise StoppedError
                share = (number + min(done / request.num_steps, 1)) / len(request.arms)
                progress(share, f"{arm}: step {min(done + 1, request.num_steps)} of {request.num_steps}")

            with counted_calls(pipeline.transformer, on_step):
                yield self._drawn(pipeline, arm, request)

    def _drawn(self, pipeline: MultiCrafterPipeline, arm: str, request: DemoRequest) -> Drawn:
        faces = self.faces(request.references, pipeline.spec.reference_size)
        out = pipeline(
            request.prompt,
            [face.reference for face in faces],
            num_inference_steps=request.num_steps,
            guidance_scale=request.guidance,
            shift=self._models.shift if pipeline.spec.shift is None else None,
            generator=torch.Generator().manual_seed(request.seed),
            output_attention=True,
        )
        assert isinstance(out.images, list), "images of Pillow are the default"
        assert out.attention is not None, "it was requested"
        picture = np.asarray(out.images[0])
        heats = out.attention[0].float().cpu().numpy()
        maps = tuple(heat_overlay(picture, heat, person) for person, heat in enumerate(heats))
        return Drawn(arm, picture, maps, face_sims(picture, faces, self._models.finder))

    def _loaded(self, arm: str) -> MultiCrafterPipeline:
        if self._pipeline is None or self._arm != arm:
            self._pipeline = None  # two generators at a time may not fit into memory
            self._pipeline, self._arm = load(self._models, arm), arm
        return self._pipeline


def load(models: DemoModels, arm: str) -> MultiCrafterPipeline:
    """The generator with the adapter of an arm, or with none that changes it.

    Raises:
        FileNotFoundError: a folder or a file of the adapter is missing.
        ValueError: a file is damaged, or the adapter belongs to another generator.
    """
    if arm != BASE:
        return MultiCrafterPipeline.from_pretrained(models.generator, adapter=models.adapters[arm])
    parts: dict[str, Any] = load_generator(models.generator).components
    pipeline = MultiCrafterPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.spec = AdapterSpec(
        rank=1,
        experts=None,
        image_size=models.image_size,
        reference_size=models.pairs.reference_size,
        shift=models.shift,
    )
    add_adapter(pipeline.transformer, pipeline.spec, BASE_SEED)
    pipeline.transformer.requires_grad_(False)
    return pipeline


def face_sims(
    picture: UInt8[np.ndarray, "S S 3"], faces: Sequence[PoolFace], finder: FaceAnalyser
) -> tuple[float, ...]:
    """Cosine of each reference and the face of the image that is assigned to it one to one; 0 without a face."""
    detected: Float[np.ndarray, "F D"] = finder.faces(picture).embeddings
    similarity = cosines(np.stack([face.embedding for face in faces]), detected)
    return tuple(float(value) for value in matched_similarity(similarity))


@contextmanager
def counted_calls(network: nn.Module, on_call: Callable[[int], None]) -> Iterator[None]:
    """Within this context, ``on_call`` receives the number of earlier calls before every call of a network."""
    calls = iter(range(2**31))
    hook = network.register_forward_pre_hook(lambda *_: on_call(next(calls)))
    try:
        yield
    finally:
        hook.remove()


def write_image(drawn: Drawn, request: DemoRequest, folder: Path) -> Path:
    """Write the image as PNG with what it was drawn from in its text chunk ``mcpipe``; returns the file.

    It holds nothing of the references but their number: neither EXIF nor names of files.

    Raises:
        OSError: the file cannot be written.
    """
    about = {
        "prompt": request.prompt,
        "seed": request.seed,
        "num_steps": request.num_steps,
        "guidance": request.guidance,
        "adapter": drawn.arm,
        "num_references": len(request.references),
        "face_sim": [round(value, 4) for value in drawn.face_sims],
        "mcpipe": version("mcpipe"),
    }
    text = PngInfo()
    text.add_itxt("mcpipe", json.dumps(about, ensure_ascii=False))
    file = folder / f"{drawn.arm}_{request.seed}.png"
    Image.fromarray(drawn.picture).save(file, pnginfo=text)
    return file
