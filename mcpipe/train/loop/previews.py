"""What a network draws of a few held-out samples while it is trained."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.encoders import decode_latents
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.sampler import initial_noise, integrate
from mcpipe.flux.tokens import unpack
from mcpipe.objectives.flow import schedule
from mcpipe.train.loop.data import Draws, EncodedSet, collate, draw
from mcpipe.train.loop.fit import OnStep

NUM_PICTURES = 4
NUM_STEPS = 20
GUIDANCE = 4.0
"""Guidance input of a guidance-distilled transformer when it draws (UNO)."""

Save = Callable[[int, str, UInt8[np.ndarray, "S S 3"]], None]
"""Is given the number of steps taken, the sample's key and its picture."""


@dataclass(frozen=True)
class Painter:
    """Draws the same held-out samples whenever it is asked, from the same noise."""

    pipeline: FluxPipeline
    network: ReferenceFlux
    data: EncodedSet
    shift: float
    """Shift of the schedule."""
    one_reference: bool

    @torch.no_grad()
    def pictures(self) -> dict[str, UInt8[np.ndarray, "S S 3"]]:
        """A picture per sample, by its key."""
        draws = Draws(0, 1, self.shift, 0.0, self.one_reference)
        positions = range(min(NUM_PICTURES, len(self.data.val)))
        drawn = [draw(self.data, self.data.val, draws, position) for position in positions]
        if not drawn:
            return {}
        device = next(self.network.parameters()).device
        told, self.network.guidance = self.network.guidance, GUIDANCE
        try:
            noise = initial_noise(self.network, positions)
            conditions = collate(drawn, device).conditions
            sigmas = schedule(NUM_STEPS, self.shift)
            tokens = integrate(self.network, noise, sigmas, range(NUM_STEPS), conditions)
        finally:
            self.network.guidance = told
        pictures = decode_latents(self.pipeline, unpack(tokens, self.network.layout.image))
        return {sample.key: picture for (sample, _, _), picture in zip(drawn, pictures, strict=True)}


def with_pictures(painter: Painter, every: int, start: Callable[[], int], save: Save, on_step: OnStep) -> OnStep:
    """A callback that also draws after every so many steps, but for those before ``start``, which are only retold."""

    def watched(step: int, values: dict[str, float]) -> None:
        on_step(step, values)
        if step >= start() and (step + 1) % every == 0:
            for key, picture in painter.pictures().items():
                save(step + 1, key, picture)

    return watched
