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

from mcpipe.core.texts import clip_windows, warn_if_cut
from mcpipe.flux.backbone import FluxPipeline, execution_device


@dataclass(frozen=True)
class Texts:
    """Encoded prompts."""

    tokens: Float[Tensor, "batch text_tokens text_width"]
    """By T5, padded to its tokeniser's full length (FLUX attends to the padding)."""
    pooled: Float[Tensor, "batch pooled_width"]
    """By CLIP; of a prompt that takes several of its windows, their mean."""


@torch.no_grad()
def encode_pictures(
    pipeline: FluxPipeline, pictures: UInt8[np.ndarray, "batch height width 3"]
) -> Float[Tensor, "batch channels h w"]:
    """Latents of RGB images, shifted and scaled as the transformer expects them."""
    vae = pipeline.vae
    pixels = torch.tensor(pictures).to(execution_device(vae)).movedim(-1, 1) / 127.5 - 1
    return (vae.encode(pixels.to(vae.dtype)).latent_dist.mode() - vae.config.shift_factor) * vae.config.scaling_factor


@torch.no_grad()
def decode_latents(
    pipeline: FluxPipeline, latents: Float[Tensor, "batch channels h w"]
) -> UInt8[np.ndarray, "batch height width 3"]:
    """RGB images of latents."""
    vae = pipeline.vae
    pixels = vae.decode(
        latents.to(execution_device(vae), vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
    ).sample
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(1, -1).cpu().numpy()


@torch.no_grad()
def encode_texts(pipeline: FluxPipeline, texts: Sequence[str]) -> Texts:
    """Prompts as the transformer reads them.

    CLIP reads a prompt of more than its 77 tokens in windows (see `mcpipe.core.texts.windows`); the mean of their
    pooled embeddings is the prompt's. T5 cuts at its own length; a warning names the words that are lost.
    """
    length, longest = pipeline.tokenizer_2.model_max_length, pipeline.tokenizer.model_max_length
    parts = [clip_windows(pipeline.tokenizer, text, longest) for text in texts]
    for text, windows in zip(texts, parts, strict=True):
        warn_if_cut("T5", pipeline.tokenizer_2, text, length)
        for window in windows:
            warn_if_cut("CLIP", pipeline.tokenizer, window, longest)
    first = [windows[0] for windows in parts]
    tokens, pooled, _ = pipeline.encode_prompt(prompt=first, prompt_2=list(texts), max_sequence_length=length)
    assert pooled is not None, "texts were given, not embeddings"
    for number, windows in enumerate(parts):
        if len(windows) > 1:
            pooled[number] = torch.cat([pooled[number : number + 1], _pooled(pipeline, windows[1:]).to(pooled)]).mean(0)
    return Texts(tokens, pooled)


def release_text_encoders(pipeline: FluxPipeline) -> None:
    """Move the text encoders to main memory; nothing can be encoded on another device afterwards."""
    for encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
        encoder.to("cpu")


def _pooled(pipeline: FluxPipeline, texts: Sequence[str]) -> Float[Tensor, "batch pooled_width"]:
    """CLIP's pooled embeddings of texts that it reads whole, as stock diffusers makes them."""
    inputs = pipeline.tokenizer(
        list(texts), padding="max_length", max_length=pipeline.tokenizer.model_max_length, truncation=True,
        return_tensors="pt",
    )  # fmt: skip
    return pipeline.text_encoder(inputs.input_ids.to(execution_device(pipeline.text_encoder))).pooler_output
