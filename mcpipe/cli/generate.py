"""The verb ``mcpipe generate``: one image of given people, outside the pipeline.

References are cropped as in the stage `pairs`, and the image is sampled as in the stage `generate`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mcpipe.bench.portraits import Portrait
from mcpipe.cli.outputs import Output, check_outputs, write_pictures
from mcpipe.cli.settings import located, read_content, settings_file
from mcpipe.core.params import Params, check_params, people_numbers, section_content
from mcpipe.core.records import RejectionError
from mcpipe.flux.adapters import read_spec
from mcpipe.flux.sampler import SampleParams
from mcpipe.models.faces import InsightFaces
from mcpipe.models.protocols import FaceAnalyser
from mcpipe.pipelines import MultiCrafterOutput, MultiCrafterPipeline
from mcpipe.report.images import heat_overlay
from mcpipe.steps.generate import GenerateParams
from mcpipe.steps.pairs import PairsParams, face_of
from mcpipe.steps.settings import SECTIONS

SEEDS = range(-(2**63), 2**64)
"""Range of seeds that torch accepts."""


class GenerationSettings(Params):
    """The sections of params.yaml that generation reads."""

    generate: GenerateParams
    pairs: PairsParams


def command(options: argparse.Namespace) -> str:
    """Run the verb; returns a line for each written file.

    Raises:
        FileNotFoundError: a reference, the generator, the adapter or the face pack is missing.
        ValueError: there are too many references, a reference has no face or several, the adapter is damaged or
            belongs to another generator, the seed or a setting is invalid, or maps are wanted at low memory.
        OSError: the images cannot be written.
    """
    file = settings_file()
    content = read_content(file, None, options.changes)
    sections = {name: section_content(content, name, SECTIONS[name]) for name in ("generate", "pairs")}
    settings = check_params(sections, GenerationSettings)
    models = located(content, file.parent)
    check_request(options.prompt, options.references, options.seed, people_numbers(settings.pairs.num_people)[-1])
    if options.memory == "low" and options.attention is not None:
        raise ValueError("--attention needs the weights of a whole block; say --memory medium")
    outputs = picture_files(options.out, options.attention, len(options.references))
    read = {f"reference {number}": picture for number, picture in enumerate(options.references, 1)}
    read |= {"--adapter": options.adapter, "the settings": file}
    read |= {f"models.{name}": models[name] for name in ("faces", "generator")}
    check_outputs(outputs, read)
    size = read_spec(options.adapter).reference_size
    finder = InsightFaces(models["faces"], settings.pairs.min_face_score, settings.pairs.detection_size)
    references = [reference(picture, finder, settings.pairs, size) for picture in options.references]
    pipeline = MultiCrafterPipeline.from_pretrained(models["generator"], adapter=options.adapter, memory=options.memory)
    with_attention = options.attention is not None
    drawn = draw(
        pipeline, options.prompt, references, options.seed, settings.generate.sample, with_attention=with_attention
    )
    return "\n".join(write(drawn, [output.path for output in outputs]))


def check_request(prompt: str, references: Sequence[Path], seed: int, most: int) -> None:
    """Check the request before anything is loaded.

    Raises:
        FileNotFoundError: a reference is missing.
        ValueError: the prompt is empty, the seed is out of range, or there are more people than in training.
    """
    if seed not in SEEDS:
        raise ValueError(f"a seed should be from {SEEDS[0]} to {SEEDS[-1]}, not {seed}")
    if not prompt.strip():
        raise ValueError("the prompt is empty; describe the picture and everybody in it")
    if len(references) > most:
        raise ValueError(
            f"{len(references)} references, but the adapter was trained on pictures of {most} people "
            f"(subjects.num_people); give at most {most}, or say -S subjects.num_people={len(references)}"
        )
    for file in references:
        if not file.is_file():
            raise FileNotFoundError(f"no reference picture {file}")


def reference(file: Path, finder: FaceAnalyser, params: PairsParams, size: int) -> np.ndarray:
    """The only face of an image, cropped like references of training samples: uint8 RGB, ``size`` pixels on a side.

    Raises:
        ValueError: the file is not an image, or has no face or several.
    """
    portrait = Portrait(file, file.name, "reference")
    try:
        return face_of(portrait, finder, params.model_copy(update={"reference_size": size})).reference
    except RejectionError as error:
        reason = error.reason.replace("_", " ")
        about_faces = error.reason in ("no_face", "several_faces")
        expected = "a picture of exactly one face, with some room around it" if about_faces else "an image file"
        raise ValueError(f"reference {file}: {reason} ({error.detail}); give {expected}") from error


def draw(
    pipeline: MultiCrafterPipeline,
    prompt: str,
    references: list[np.ndarray],
    seed: int,
    params: SampleParams,
    *,
    with_attention: bool,
) -> MultiCrafterOutput:
    """One image, reproducible from the seed; with attention maps if ``with_attention``."""
    return pipeline(
        prompt,
        references,
        num_inference_steps=params.num_steps,
        guidance_scale=params.guidance,
        shift=params.shift,
        generator=torch.Generator().manual_seed(seed),
        output_attention=with_attention,
    )


def picture_files(out: Path, attention: Path | None, num_references: int) -> list[Output]:
    """Output files: the image and, if ``attention`` is a folder, a map per reference in their order."""
    numbers = range(1, num_references + 1) if attention is not None else ()
    maps = [Output("--attention", attention / f"reference_{number}.png", "picture") for number in numbers if attention]
    return [Output("--out", out, "picture"), *maps]


def write(drawn: MultiCrafterOutput, files: Sequence[Path]) -> list[str]:
    """Write the image and its attention maps; returns a line for each file.

    Raises:
        OSError: a file cannot be written; then no file is written.
    """
    assert isinstance(drawn.images, list), "pictures were asked for"
    picture = drawn.images[0]
    maps = [] if drawn.attention is None else drawn.attention[0].float().cpu().numpy()
    overlays = [Image.fromarray(heat_overlay(np.asarray(picture), heat, subject)) for subject, heat in enumerate(maps)]
    write_pictures(dict(zip(files, [picture, *overlays], strict=True)))
    return [f"{files[0]}: {picture.width} x {picture.height} pixels"] + [
        f"{file}: where reference {number} looked, averaged over all steps" for number, file in enumerate(files[1:], 1)
    ]
