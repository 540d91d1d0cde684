"""Figures of the tiny SDXL: Face-Sim of held-out people drawn by the stock pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from diffusers import StableDiffusionXLPipeline
from pydantic import Field

from mcpipe.core.params import Params
from mcpipe.core.progress import track
from mcpipe.models.protocols import FaceAnalyser
from mcpipe.objectives.reward import identity_reward
from mcpipe.steps.sdxl_drawing import SdxlDrawing, SdxlRequest, drawn_image
from zoo.build.crops import cut_out
from zoo.build.generator_text import portrait_caption
from zoo.build.pictures import Pictures
from zoo.build.sdxl_data import ANYBODY

LARGE = 4
"""Enlargement of a crop in which the true face is detected."""


class DrawParams(Params):
    """How images are drawn for the figures."""

    num: int = Field(ge=2)
    """Images of each kind."""
    num_steps: int = Field(ge=1)
    """Steps of the scheduler."""
    guidance: float = Field(ge=1)
    """Guidance scale."""
    reference_size: int = Field(gt=0)
    """Pixels of a reference's side."""
    min_face_score: float = Field(ge=0, le=1)
    """Certainty of a face detection."""
    detection_size: int = Field(ge=32)
    """Side in pixels at which the detector sees an image."""


@dataclass(frozen=True)
class Request:
    """One person to be drawn, with the embedding of the reference's face."""

    prompt: str
    reference: np.ndarray
    identity: np.ndarray


def measured(
    pipeline: StableDiffusionXLPipeline, pictures: Pictures, faces: FaceAnalyser, params: DrawParams, size: int
) -> dict[str, float]:
    """Face-Sim of scenes of one person and of close-ups, from their own reference, somebody else's and none."""
    metrics: dict[str, float] = {}
    for kind in ("", "portrait_"):
        given = requests(pictures, faces, params, portrait=bool(kind))
        for name, drawn in drawn_kinds(pipeline, given, params, size).items():
            sims = [similarity(faces, image, each.identity) for image, each in zip(drawn, given, strict=True)]
            metrics[f"{kind}face_sim_{name}"] = float(np.mean([value for value, _ in sims]))
            if name == "right":
                metrics[f"{kind}located_right"] = float(np.mean([located for _, located in sims]))
    return metrics


def requests(pictures: Pictures, faces: FaceAnalyser, params: DrawParams, *, portrait: bool) -> list[Request]:
    """Held-out people whose reference shows a face to the detector."""
    people: list[Request] = []
    for scene in pictures.scenes:
        if not portrait and len(scene["people"]) > 1:
            continue
        crop = np.asarray(pictures.references[scene["first_reference"]])
        embeddings = faces.faces(cv2.resize(crop[..., :3], None, fx=LARGE, fy=LARGE)).embeddings
        if len(embeddings) == 1:
            side = (params.reference_size, params.reference_size)
            reference = cv2.resize(cut_out(crop), side, interpolation=cv2.INTER_AREA)
            prompt = portrait_caption(ANYBODY) if portrait else scene["settings"][0]
            people.append(Request(prompt, reference, embeddings[0]))
        if len(people) == params.num:
            break
    return people


def drawn_kinds(
    pipeline: StableDiffusionXLPipeline, given: Sequence[Request], params: DrawParams, size: int
) -> dict[str, list[np.ndarray]]:
    """Images of every request from the same noise: own reference, the next person's, none."""
    own = [each.reference for each in given]
    kinds = {"right": own, "others": [*own[1:], own[0]], "none": own}
    drawing = SdxlDrawing(size, params.num_steps, params.guidance)
    images: dict[str, list[np.ndarray]] = {}
    for kind, references in kinds.items():
        to_draw = [
            SdxlRequest(each.prompt, [reference], seed, blind=kind == "none")
            for seed, (each, reference) in enumerate(zip(given, references, strict=True))
        ]
        waiting = track(to_draw, len(to_draw), f"drawing, {kind}")
        images[kind] = [drawn_image(pipeline, request, drawing) for request in waiting]
    return images


def similarity(faces: FaceAnalyser, image: np.ndarray, identity: np.ndarray) -> tuple[float, bool]:
    """Face-Sim of an image and one person, and whether a face was found."""
    embeddings = faces.faces(image).embeddings
    return identity_reward(identity[None] @ embeddings.T), len(embeddings) > 0
