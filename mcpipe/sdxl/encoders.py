"""The frozen ends of SDXL: images, texts and references in.

Latents are the mode of the VAE's posterior, as with FLUX (`mcpipe.flux.encoders`).
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from mcpipe.core.texts import warn_if_cut
from mcpipe.sdxl.backbone import StableDiffusionXLPipeline, reads_hidden_states


@torch.no_grad()
def encode_pictures(
    pipeline: StableDiffusionXLPipeline, pictures: UInt8[np.ndarray, "batch height width 3"]
) -> Float[Tensor, "batch channels h w"]:
    """Latents of RGB images, scaled as the UNet expects them."""
    vae = pipeline.vae
    pixels = torch.tensor(pictures).to(vae.device).movedim(-1, 1) / 127.5 - 1
    return vae.encode(pixels.to(vae.dtype)).latent_dist.mode() * vae.config.scaling_factor


@torch.no_grad()
def encode_text(
    pipeline: StableDiffusionXLPipeline, text: str
) -> tuple[Float[Tensor, "text_tokens text_width"], Float[Tensor, " pooled_width"]]:
    """A prompt's tokens and pooled embedding; a warning names the words that CLIP's 77 tokens lose."""
    warn_if_cut("CLIP", pipeline.tokenizer, text, pipeline.tokenizer.model_max_length)
    tokens, _, pooled, _ = pipeline.encode_prompt(text, do_classifier_free_guidance=False)
    return tokens[0], pooled[0]


@torch.no_grad()
def encode_references(
    pipeline: StableDiffusionXLPipeline, references: Sequence[UInt8[np.ndarray, "height width 3"]]
) -> Float[Tensor, "references image_tokens image_width"]:
    """What the IP-Adapter reads of references: all tokens of the image encoder (Plus), or one embedding (plain)."""
    images = [Image.fromarray(reference) for reference in references]
    whole = reads_hidden_states(pipeline.unet)
    features, _ = pipeline.encode_image(images, pipeline.unet.device, 1, output_hidden_states=whole)
    return features if whole else features[:, None]
