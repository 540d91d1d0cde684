"""The frozen ends of the generator: images and texts in, images out.

Latents are the mode of the VAE's posterior, not a sample of it as in UNO, so that the same image always gives the
same latents and they can be stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mcpipe.core.texts import warn_if_cut
from mcpipe.flux.backbone import FluxPipeline


@dataclass(frozen=True)
class Texts:
    """Encoded prompts."""

    tokens: Float[Tensor, "batch text_tokens text_width"]
    """By T5, padded to its tokeniser's full length (FLUX attends to the padding)."""
    pooled: Float[Tensor, "batch pooled_width"]
    """By CLIP."""


@torch.no_grad()
def encode_pictures(
    pipeline: FluxPipeline, pictures: UInt8[np.ndarray, "batch height width 3"]
) -> Float[Tensor, "batch channels h w"]:
    """Latents of RGB images, shifted and scaled as the transformer expects them."""
    vae = pipeline.vae
    pixels = torch.tensor(pictures).to(vae.device).movedim(-1, 1) / 127.5 - 1
    return (vae.encode(pixels.to(vae.dtype)).latent_dist.mode() - vae.config.shift_factor) * vae.config.scaling_factor


@torch.no_grad()
def decode_latents(
    pipeline: FluxPipeline, latents: Float[Tensor, "batch channels h w"]
) -> UInt8[np.ndarray, "batch height width 3"]:
    """RGB images of latents."""
    vae = pipeline.vae
    pixels = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor).sample
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(1, -1).cpu().numpy()


@torch.no_grad()
def encode_texts(pipeline: FluxPipeline, texts: Sequence[str]) -> Texts:
    """Prompts as the transformer reads them; a warning names the words that are beyond an encoder's length."""
    length = pipeline.tokenizer_2.model_max_length
    for text in texts:
        warn_if_cut("T5", pipeline.tokenizer_2, text, length)
        warn_if_cut("CLIP", pipeline.tokenizer, text, pipeline.tokenizer.model_max_length)
    tokens, pooled, _ = pipeline.encode_prompt(prompt=list(texts), prompt_2=None, max_sequence_length=length)
    return Texts(tokens, pooled)
