"""Scores of the generator: its autoencoder on real squares, and images drawn for prompts.

Images are scored by the zoo's own detector, segmenter and recogniser; how well the reader of shirts does on real
squares of the same size stands beside its verdict on drawn ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from mcpipe.core.params import read_params
from mcpipe.core.progress import track
from mcpipe.flux.backbone import FluxPipeline, load_generator
from mcpipe.models.pose import UltralyticsPose
from mcpipe.models.segmenter import Sam2
from mcpipe.steps.generate import GenerateParams
from zoo.build.training import batches
from zoo.build.vae import as_tensor
from zoo.scores.draw import GENERATED, Job, Square, squares
from zoo.scores.faces import FAR, at_generated_size, load, small_squares
from zoo.scores.figures import Figure
from zoo.scores.pose import SURE
from zoo.scores.recognition import Sighting, Verdict, compared, verdict
from zoo.scores.references import reference_figures
from zoo.scores.sheet import save_sheet
from zoo.scores.shirts import SeenPerson, ShirtReader

NUM_PROMPTS = 96
NUM_READ = 100
"""Real squares on which the reader of shirts is measured."""

BATCH = 8
SETTINGS = Path("params.yaml")
NUM_SHOWN = 16
"""Images on the contact sheet."""


@dataclass(frozen=True)
class DrawnVerdict:
    """Comparison of one image with its scene."""

    count_right: bool
    shirts: tuple[bool, ...]
    """Whether each person's shirt is right, from left to right; all wrong if the number of people is wrong."""


def measure(job: Job) -> list[Figure]:
    """Reconstruct, draw and score; the first images go to the contact sheet."""
    pipeline = load_generator(job.zoo / "generator")
    faces = load(job.zoo, "faces", "puppet")
    return [
        *autoencoder_figures(pipeline.vae, job),
        *drawn_figures(pipeline, job),
        *reference_figures(pipeline, faces, job),
    ]


def autoencoder_figures(vae: AutoencoderKL, job: Job) -> list[Figure]:
    """How much of an image survives the autoencoder, in decibels and for the recogniser."""
    faces = load(job.zoo, "faces", "puppet")
    originals, rebuilt, errors = [], [], []
    for number, who, square in small_squares(job.seed):
        picture_small = square.sized(GENERATED)
        again = reconstruction(vae, picture_small)
        errors.append(float(np.square(picture_small.astype(float) - again).mean()))
        for kept, picture in ((originals, picture_small), (rebuilt, again)):
            embeddings = at_generated_size(faces, picture, square)
            kept += [Sighting(name, number, 0, embedding) for name, embedding in zip(who, embeddings, strict=True)]
    before, after = _accepted(originals), _accepted(rebuilt)
    psnr_db = 10 * np.log10(255**2 / np.mean(errors))
    of = f"genuine and {after.impostor} impostor pairs"
    ratio = after.rates[FAR[0]] / max(before.rates[FAR[0]], 1e-9)
    return [
        Figure("vae_psnr_db", float(psnr_db), len(errors), "squares", 25.0),
        Figure("vae_tar_at_far_1e2", after.rates[FAR[0]], after.genuine, of),
        Figure("original_tar_at_far_1e2", before.rates[FAR[0]], before.genuine, of),
        Figure("vae_tar_kept", ratio, after.genuine, of, 0.9),
    ]


def _accepted(sightings: list[Sighting]) -> Verdict:
    comparison = compared(sightings)
    return verdict(comparison.cosines, comparison.same, ~comparison.same, FAR)


@torch.no_grad()
def reconstruction(vae: AutoencoderKL, picture: np.ndarray) -> np.ndarray:
    """An image (S, S, 3) uint8 encoded and decoded."""
    rebuilt = vae.decode(vae.encode(as_tensor(picture[None]).to(vae.device)).latent_dist.mode()).sample[0]
    return rebuilt.add(1).mul(127.5).round().clamp(0, 255).permute(1, 2, 0).byte().cpu().numpy()


def drawn_figures(pipeline: FluxPipeline, job: Job) -> list[Figure]:
    """Share of images with the number of people and the colours of shirts in their captions."""
    reader = ShirtReader(UltralyticsPose(job.zoo / "pose" / "pose.pt", SURE), Sam2(job.zoo / "segmenter"))
    real = [
        against_scene(square, reader.people(square.sized(GENERATED)))
        for square in track(squares(job.seed, "squares", NUM_READ), NUM_READ, "shirts of real squares")
    ]
    drawn_squares = list(squares(job.seed, "prompts", NUM_PROMPTS))
    pictures = list(
        track(drawn(pipeline, [square.caption for square in drawn_squares], job.seed), NUM_PROMPTS, "drawing")
    )
    verdicts = [
        against_scene(square, reader.people(picture)) for square, picture in zip(drawn_squares, pictures, strict=True)
    ]
    save_sheet(job.sheet, pictures[:NUM_SHOWN], [square.caption for square in drawn_squares[:NUM_SHOWN]])
    shirts = [right for verdict in verdicts for right in verdict.shirts]
    read = [right for verdict in real if verdict.count_right for right in verdict.shirts]
    alone = [right for verdict in verdicts if verdict.count_right for right in verdict.shirts]
    return [
        Figure(
            "count_right", float(np.mean([verdict.count_right for verdict in verdicts])), NUM_PROMPTS, "prompts", 0.8
        ),
        Figure("shirt_colour_right", float(np.mean(shirts)), len(shirts), "people", 0.7),
        Figure("shirt_colour_right_where_count_is", float(np.mean(alone or [0.0])), len(alone), "people"),
        Figure("shirt_reader_right_on_real", float(np.mean(read)), len(read), "people", 0.95, ours=True),
    ]


def drawn(pipeline: FluxPipeline, prompts: Sequence[str], seed: int) -> Iterator[np.ndarray]:
    """Images (96, 96, 3) uint8 at the pipeline's settings; each starts from noise of its own."""
    sample = read_params(SETTINGS, "generate", GenerateParams).sample
    for part in batches(len(prompts), BATCH):
        numbers = range(part.start, part.stop)
        answer = pipeline(
            prompt=list(prompts[part]), height=GENERATED, width=GENERATED, num_inference_steps=sample.num_steps,
            guidance_scale=sample.guidance, output_type="np", max_sequence_length=pipeline.tokenizer_2.model_max_length,
            generator=[torch.Generator().manual_seed(1000 * seed + number) for number in numbers],
        )  # fmt: skip
        yield from (answer.images * 255).round().astype(np.uint8)


def against_scene(square: Square, seen: Sequence[SeenPerson]) -> DrawnVerdict:
    """Comparison of the detected people with the people of the scene."""
    people = square.scene.people
    if len(seen) != len(people):
        return DrawnVerdict(count_right=False, shirts=(False,) * len(people))
    pairs = zip(seen, people, strict=True)
    return DrawnVerdict(count_right=True, shirts=tuple(guess.shirt == person.outfit.colour for guess, person in pairs))
