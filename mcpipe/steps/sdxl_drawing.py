"""An image of SDXL with an IP-Adapter, drawn by a stock pipeline; each reference is seen in its own strip.

Images are drawn one by one: of a batch, the stock pipeline shows every image the references of all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from mcpipe.sdxl.backbone import StableDiffusionXLPipeline


@dataclass(frozen=True)
class SdxlRequest:
    """An image to draw."""

    prompt: str
    references: Sequence[UInt8[np.ndarray, "R R 3"]]
    """From left to right."""
    seed: int
    """Seed of its noise."""
    blind: bool = False
    """Whether it is drawn from the text alone, without the adapter."""


@dataclass(frozen=True)
class SdxlDrawing:
    """How images are drawn."""

    size: int
    """Side of an image in pixels."""
    num_steps: int
    """Steps of the pipeline's scheduler."""
    guidance: float
    """Guidance scale; up to 1 without guidance."""


@torch.no_grad()
def drawn_image(
    pipeline: StableDiffusionXLPipeline, request: SdxlRequest, drawing: SdxlDrawing
) -> UInt8[np.ndarray, "H W 3"]:
    """The image of a request."""
    pipeline.set_ip_adapter_scale(0.0 if request.blind else 1.0)
    image = pipeline(
        request.prompt,
        height=drawing.size,
        width=drawing.size,
        ip_adapter_image=[[Image.fromarray(reference) for reference in request.references]],
        cross_attention_kwargs={"ip_adapter_masks": [strips(len(request.references), drawing.size)]},
        num_inference_steps=drawing.num_steps,
        guidance_scale=drawing.guidance,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="np",
    ).images[0]
    return as_bytes(np.asarray(image))


def strips(number: int, side: int) -> Float[Tensor, "1 references side side"]:
    """Masks of an IP-Adapter that divide an image into strips of equal width, the first on the left."""
    owner = torch.arange(side) * number // side
    return (owner == torch.arange(number)[:, None]).float()[None, :, None].expand(-1, -1, side, -1)


def as_bytes(image: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    """An image in [0, 1] in 256 steps."""
    return (image * 255).round().astype(np.uint8)
