"""The verb ``mcpipe generate``: one image of given people and objects, outside the pipeline.

People are cropped as in the stage `pairs`, objects cut out as in the branch of objects, and the image is sampled as in
the stage `generate`.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mcpipe.cli.given import GivenReference, given_references, object_reference, person_reference
from mcpipe.cli.outputs import Output, check_outputs, write_pictures
from mcpipe.cli.settings import located, read_content, section, settings_file
from mcpipe.core.params import Params, check_params, people_numbers, section_content
from mcpipe.core.sizes import Size, size_of
from mcpipe.flux.adapters import read_spec
from mcpipe.flux.low_memory import check_memory
from mcpipe.flux.sampler import SampleParams
from mcpipe.models.faces import InsightFaces
from mcpipe.pipelines import MultiCrafterOutput, MultiCrafterPipeline
from mcpipe.report.images import heat_overlay
from mcpipe.steps.generate import GenerateParams
from mcpipe.steps.object_finder import GroundingParams, ObjectModels
from mcpipe.steps.pairs import PairsParams
from mcpipe.steps.settings import SECTIONS

MODELS = ("faces", "generator", "grounder", "segmenter")
"""Models that a request may need."""
SEEDS = range(-(2**63), 2**64)
"""Range of seeds that torch accepts."""


class GenerationSettings(Params):
    """The sections of params.yaml that generation reads."""

    generate: GenerateParams
    pairs: PairsParams
    grounding: GroundingParams


def command(options: argparse.Namespace) -> str:
    """Run the verb; returns a line for each written file.

    Raises:
        FileNotFoundError: a reference, the generator, the adapter or the face pack is missing.
        ValueError: there are too many references, a reference has no face, several, or not its object, the adapter is
            damaged or belongs to another generator, the seed, the size or a setting is invalid, maps are wanted at low
            memory, or frozen weights cannot be stored as ``--quantize`` says.
        OSError: the images cannot be written.
    """
    file = settings_file()
    content = read_content(file, None, options.changes)
    sections = {name: section_content(content, name, SECTIONS[name]) for name in ("generate", "pairs")}
    sections |= {"grounding": section(content, "grounding")}
    settings = check_params(sections, GenerationSettings)
    models = located(content, file.parent)
    image_size = None if options.size is None else size_of(options.size)
    most = people_numbers(settings.pairs.num_people)[-1]
    given = check_request(options.prompt, options.references, options.seed, most)
    check_memory(options.memory, options.quantize)
    if options.memory == "low" and options.attention is not None:
        raise ValueError("--attention needs the weights of a whole block; say --memory medium")
    outputs = picture_files(options.out, options.attention, len(options.references))
    read = {f"reference {number}": reference.file for number, reference in enumerate(given, 1)}
    read |= {"--adapter": options.adapter, "the settings": file}
    read |= {f"models.{name}": models[name] for name in MODELS if name in models}
    check_outputs(outputs, read)
    size = read_spec(options.adapter).reference_size
    references = cut_references(given, models, settings, size)
    pipeline = MultiCrafterPipeline.from_pretrained(
        models["generator"], adapter=options.adapter, memory=options.memory, quantize=options.quantize
    )
    with_attention = options.attention is not None
    sample = settings.generate.sample
    drawn = draw(
        pipeline, options.prompt, references, options.seed, sample, with_attention=with_attention, size=image_size
    )
    return "\n".join(write(drawn, [output.path for output in outputs]))


def check_request(prompt: str, references: Sequence[Path], seed: int, most: int) -> list[GivenReference]:
    """Check the request before anything is loaded; returns the references.

    Raises:
        FileNotFoundError: a reference is missing.
        ValueError: the prompt is empty, the seed is out of range, there are more references than in training, a phrase
            is empty, or two objects have the same.
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
    return given_references(references)


def cut_references(
    given: Sequence[GivenReference], models: Mapping[str, Path], settings: GenerationSettings, size: int
) -> list[np.ndarray]:
    """The given references as the adapter was trained with them; loads what their kinds need.

    Raises:
        FileNotFoundError: a model is missing.
        ValueError: a model is damaged, or a reference shows no face, several, or not the object that its phrase says.
    """
    faces = things = None
    if not all(reference.phrase for reference in given):
        faces = InsightFaces(models["faces"], settings.pairs.min_face_score, settings.pairs.detection_size)
    if any(reference.phrase for reference in given):
        places = ObjectModels(models["grounder"], models["segmenter"])
        things = places.finder(settings.grounding.min_score, size)
    cut = []
    for reference in given:
        if reference.phrase:
            assert things is not None, "loaded for any phrase"
            cut.append(object_reference(reference, things))
        else:
            assert faces is not None, "loaded for any person"
            cut.append(person_reference(reference.file, faces, settings.pairs, size))
    return cut


def draw(
    pipeline: MultiCrafterPipeline,
    prompt: str,
    references: list[np.ndarray],
    seed: int,
    params: SampleParams,
    *,
    with_attention: bool,
    size: Size | None = None,
) -> MultiCrafterOutput:
    """One image, reproducible from the seed; with attention maps if ``with_attention``.

    ``size`` is its width and height in pixels; ``None`` for the square that the adapter was trained at.
    """
    width, height = (None, None) if size is None else size
    return pipeline(
        prompt,
        references,
        num_inference_steps=params.num_steps,
        guidance_scale=params.guidance,
        shift=params.shift,
        height=height,
        width=width,
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
