"""Images of a few held-out samples, generated while the network is trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.encoders import decode_latents
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.sampler import initial_noise, integrate
from mcpipe.flux.tokens import Grid, unpack
from mcpipe.objectives.flow import schedule
from mcpipe.train.loop.data import Draws, EncodedSet, TrainingSample, collate, draw
from mcpipe.train.loop.fit import OnStep

NUM_IMAGES = 4
NUM_STEPS = 20
GUIDANCE = 4.0
"""Guidance scale given to a guidance-distilled transformer for previews (UNO)."""

Save = Callable[[int, str, UInt8[np.ndarray, "H W 3"]], None]
"""Takes the number of optimiser steps, the sample's key and its image."""


@dataclass(frozen=True)
class PreviewSampler:
    """Generates images of the same held-out samples from the same noise at every call."""

    pipeline: FluxPipeline
    network: ReferenceFlux
    data: EncodedSet
    shift: float
    """Shift s of the noise schedule."""
    one_reference: bool
    """Whether only one of the people is given, as in stage 1."""

    @torch.no_grad()
    def images(self) -> dict[str, UInt8[np.ndarray, "H W 3"]]:
        """One image per sample, by the sample's key; none without held-out samples."""
        draws = Draws(0, 1, self.shift, 0.0, self.one_reference)
        positions = range(min(NUM_IMAGES, len(self.data.val)))
        drawn = [draw(self.data, self.data.val, draws, position) for position in positions]
        if not drawn:
            return {}
        guidance, self.network.guidance = self.network.guidance, GUIDANCE
        by_grid: dict[Grid | None, list[int]] = {}
        for position, (sample, _, _) in zip(positions, drawn, strict=True):
            by_grid.setdefault(sample.grid, []).append(position)
        images: dict[int, UInt8[np.ndarray, "H W 3"]] = {}
        try:
            for alike in by_grid.values():
                images.update(zip(alike, self._alike([drawn[position] for position in alike], alike), strict=True))
        finally:
            self.network.guidance = guidance
        return {sample.key: images[position] for position, (sample, _, _) in zip(positions, drawn, strict=True)}

    def _alike(
        self, drawn: Sequence[tuple[TrainingSample, Tensor, Tensor]], seeds: Sequence[int]
    ) -> UInt8[np.ndarray, "batch H W 3"]:
        """Images of samples of one shape, each from the noise of a seed."""
        conditions = collate(drawn, next(self.network.parameters()).device).conditions
        noise, sigmas = initial_noise(self.network, seeds, conditions), schedule(NUM_STEPS, self.shift)
        tokens = integrate(self.network, noise, sigmas, range(NUM_STEPS), conditions)
        return decode_latents(self.pipeline, unpack(tokens, self.network.layout_of(conditions).image))


def with_previews(sampler: PreviewSampler, every: int, first: Callable[[], int], save: Save, on_step: OnStep) -> OnStep:
    """A callback that also saves previews after every ``every`` steps.

    Steps before ``first()`` were taken by an earlier run, which saved their previews.
    """

    def save_previews(step: int, metrics: dict[str, float]) -> None:
        on_step(step, metrics)
        if step >= first() and (step + 1) % every == 0:
            for key, image in sampler.images().items():
                save(step + 1, key, image)

    return save_previews
