"""Scores of the inpainter: what repainting gives back of the fit of image and caption, and what it leaves alone."""

from mcpipe.flux.inpainting import FluxFill, InpaintParams
from mcpipe.models.scorers.clip import Clip
from zoo.build.inpainter import measured
from zoo.scores.draw import Job
from zoo.scores.figures import Figure
from zoo.scores.pictures import drawn_pictures

NUM_IMAGES = 48
SAMPLE = InpaintParams(num_steps=12, guidance=2.0)


def measure(job: Job) -> list[Figure]:
    """Repaint parts of new scenes; ``restored`` is 0 where they fit as grey ones do, 1 where they fit as before."""
    painter = FluxFill(job.zoo / "inpainter", job.zoo / "generator", SAMPLE)
    cosines = measured(painter, drawn_pictures(job.seed), Clip(job.zoo / "clip"), job.seed, NUM_IMAGES)
    gap = cosines["clip_original"] - cosines["clip_grey"]
    restored = (cosines["clip_repainted"] - cosines["clip_grey"]) / gap
    return [
        Figure("caption_restored", restored, NUM_IMAGES, "images", 0.5, ours=True),
        Figure("change_outside", cosines["change_outside"], NUM_IMAGES, "images", 1.0, below=True, ours=True),
        Figure("change_inside", cosines["change_inside"], NUM_IMAGES, "images"),
    ]
