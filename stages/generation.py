"""One picture of given people, outside of the pipeline: what ``mcpipe generate`` does.

References are cut as the stage `pairs` cuts the benchmark's; the picture is drawn as the stage `generate` draws those.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from mcpipe.bench.pictures import heat_overlay
from mcpipe.flux.adapters import read_spec
from mcpipe.flux.pipeline import MultiCrafterOutput, MultiCrafterPipeline
from mcpipe.flux.sampler import SampleParams
from mcpipe.models.faces import InsightFaces
from mcpipe.models.protocols import FaceAnalyser
from mcpipe.params import Params, check_params
from mcpipe.records import Rejection
from stages.s09_pairs import PairsParams, face_of
from stages.s11_generate import GenerateParams
from stages.settings import located, read_content, section, settings_file


class People(Params):
    """Of the section ``subjects``: how many people a training picture shows."""

    num_people: int = Field(ge=1)


class Settings(Params):
    """What drawing one picture reads of params.yaml."""

    generate: GenerateParams
    pairs: PairsParams
    subjects: People


def command(options: argparse.Namespace) -> str:
    """Draw the picture that the command line asks for; returns what was written.

    Raises:
        FileNotFoundError: a reference, the generator, the adapter or the face pack is missing.
        ValueError: there are too many references, one of them shows no face or several, the adapter is damaged or
            belongs to another generator, or a setting is none.
        OSError: the picture cannot be written.
    """
    file = settings_file()
    content = read_content(file, None, options.changes)
    people = section(content, "subjects")["num_people"]
    sections = {name: section(content, name) for name in ("generate", "pairs")}
    settings = check_params({**sections, "subjects": {"num_people": people}}, Settings)
    models = located(content, file.parent)
    check_request(options.out, options.prompt, options.references, settings.subjects.num_people)
    size = read_spec(options.adapter).reference_size
    finder = InsightFaces(models["faces"], settings.pairs.min_face_score, settings.pairs.detection_size)
    references = [reference(picture, finder, settings.pairs, size) for picture in options.references]
    pipeline = MultiCrafterPipeline.from_pretrained(models["generator"], adapter=options.adapter)
    watch = options.attention is not None
    drawn = draw(pipeline, options.prompt, references, options.seed, settings.generate.sample, watch=watch)
    return "\n".join([*write(drawn, options.out, options.attention)])


def check_request(out: Path, prompt: str, references: Sequence[Path], most: int) -> None:
    """Find the faults that can be seen before anything is loaded.

    Raises:
        FileNotFoundError: a reference is missing.
        ValueError: ``out`` is named like no picture, the prompt is empty, or training never saw so many people.
    """
    if out.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"{out} should end as a picture does, such as .png")
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
    """The one face of a picture, cut as references of training samples are: uint8 RGB, ``size`` pixels on a side.

    Raises:
        ValueError: the file is no picture, or shows no face or several.
    """
    found = face_of(file, {}, finder, params.model_copy(update={"reference_size": size}))
    if isinstance(found, Rejection):
        reason = found.reason.replace("_", " ")
        raise ValueError(  # noqa: TRY004  not a type that a caller passed
            f"reference {file}: {reason} ({found.detail}); give a picture of exactly one face"
        )
    return found.arrays["reference"]


def draw(
    pipeline: MultiCrafterPipeline,
    prompt: str,
    references: list[np.ndarray],
    seed: int,
    params: SampleParams,
    *,
    watch: bool,
) -> MultiCrafterOutput:
    """One picture, the same for the same seed; with attention maps if ``watch``."""
    return pipeline(
        prompt,
        references,
        num_inference_steps=params.num_steps,
        guidance_scale=params.guidance,
        shift=params.shift,
        generator=torch.Generator().manual_seed(seed),
        output_attention=watch,
    )


def write(drawn: MultiCrafterOutput, out: Path, attention: Path | None) -> list[str]:
    """Write the picture and, if a folder is named for them, its attention maps; returns a line for each file."""
    assert isinstance(drawn.images, list), "pictures were asked for"
    picture = drawn.images[0]
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(out)
    lines = [f"{out}: {picture.width} x {picture.height} pixels"]
    if attention is None or drawn.attention is None:
        return lines
    attention.mkdir(parents=True, exist_ok=True)
    for subject, heat in enumerate(drawn.attention[0].float().cpu().numpy()):
        file = attention / f"reference_{subject + 1}.png"
        Image.fromarray(heat_overlay(np.asarray(picture), heat, subject)).save(file)
        lines.append(f"{file}: where reference {subject + 1} looked, averaged over all steps")
    return lines
