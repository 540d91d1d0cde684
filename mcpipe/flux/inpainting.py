"""An inpainter in the format of FLUX.1 Fill: a ``FluxFillPipeline`` that repaints a part of an image after a text.

Its transformer sees the noisy latents, those of the image without the part, and the part's mask, side by side. A
folder is a whole pipeline as diffusers saves it, its ``transformer`` alone, or a LoRA that widens the generator's first
layer, as that of FLUX.1-Depth-dev-lora does. In the last two cases all other parts are those of the generator, as they
are alike in FLUX.1-dev and FLUX.1 Fill.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from jaxtyping import Bool, UInt8
from pydantic import Field
from safetensors import SafetensorError

from mcpipe.core.params import Params
from mcpipe.flux.backbone import INDEX, FluxTransformer2DModel, load_generator

if TYPE_CHECKING:
    from diffusers import FluxFillPipeline

TRANSFORMER = "transformer"
KIND = "FluxFillPipeline"


class Inpainter(Protocol):
    """A model that repaints a part of an image."""

    def repainted(
        self, picture: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"], text: str, *, seed: int
    ) -> UInt8[np.ndarray, "H W 3"]:
        """The image with the masked pixels repainted after a text; all others keep their values."""
        ...


class InpaintParams(Params):
    """How a part of an image is repainted."""

    num_steps: int = Field(ge=1)
    guidance: float = Field(ge=0)
    """Guidance scale, an input of the guidance-distilled transformer (FLUX.1 Fill: 30)."""


class FluxFill:
    """An inpainter of diffusers' class."""

    def __init__(self, folder: Path, generator: Path, params: InpaintParams) -> None:
        """Load the pipeline on the best available device.

        Raises:
            FileNotFoundError: there is no such folder, or it holds no pipeline, no transformer and no LoRA.
            ValueError: a part is damaged or does not fit the generator.
        """
        self._pipeline = load_inpainter(folder, generator)
        self._params = params

    def repainted(
        self, picture: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"], text: str, *, seed: int
    ) -> UInt8[np.ndarray, "H W 3"]:
        """The image with the masked pixels repainted after a text; all others keep their values."""
        height, width = mask.shape
        drawn = self._pipeline(
            prompt=text,
            image=picture[None].astype(np.float32) / 255,
            mask_image=mask[None, :, :].astype(np.float32),
            height=height,
            width=width,
            num_inference_steps=self._params.num_steps,
            guidance_scale=self._params.guidance,
            max_sequence_length=self._pipeline.tokenizer_2.model_max_length,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
        ).images[0]
        return np.where(mask[..., None], (np.asarray(drawn) * 255).round().astype(np.uint8), picture)


def load_inpainter(folder: Path, generator: Path) -> "FluxFillPipeline":
    """The pipeline of a folder, frozen: bfloat16 on a GPU, float32 on a CPU.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no pipeline, no transformer and no LoRA.
        ValueError: a part is damaged or does not fit the generator.
    """
    from diffusers import FluxFillPipeline

    if not any((folder / name).exists() for name in (INDEX, TRANSFORMER, LORA_WEIGHT_NAME_SAFE)):
        raise FileNotFoundError(
            f"{folder} holds neither a {KIND} ({INDEX}) nor its {TRANSFORMER} nor a LoRA ({LORA_WEIGHT_NAME_SAFE}); "
            "see docs/focusdpo.md"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    try:
        if (folder / INDEX).is_file():
            kind = json.loads((folder / INDEX).read_text(encoding="utf-8")).get("_class_name")
            if kind != KIND:
                raise ValueError(f"{folder} holds a {kind}, not a {KIND}")  # noqa: TRY301  one place for all faults
            pipeline = FluxFillPipeline.from_pretrained(folder, dtype=dtype, local_files_only=True)
        else:
            parts = load_generator(generator, on_device=False).components
            chosen = {name: part for name, part in parts.items() if name not in ("image_encoder", "feature_extractor")}
            if (folder / TRANSFORMER).is_dir():
                chosen |= {TRANSFORMER: FluxTransformer2DModel.from_pretrained(folder / TRANSFORMER, torch_dtype=dtype)}
            pipeline = FluxFillPipeline(**chosen)
            if not (folder / TRANSFORMER).is_dir():
                pipeline.load_lora_weights(folder, weight_name=LORA_WEIGHT_NAME_SAFE, local_files_only=True)
                pipeline.fuse_lora()
                pipeline.unload_lora_weights()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"inpainter {folder} cannot be loaded: {reason}") from error
    check_channels(pipeline, folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        part.requires_grad_(False).eval()
    return pipeline


def check_channels(pipeline: "FluxFillPipeline", folder: Path) -> None:
    """Make sure that the transformer takes noisy latents, masked latents and a mask of this VAE.

    Raises:
        ValueError: it takes another number of channels.
    """
    expected = fill_channels(pipeline.vae.config.latent_channels, pipeline.vae_scale_factor)
    channels = pipeline.transformer.config.in_channels
    if channels != expected:
        raise ValueError(
            f"the transformer of {folder} takes {channels} channels, but with this VAE it needs {expected}"
        )


def fill_channels(latent_channels: int, vae_factor: int) -> int:
    """Channels of an inpainter's token: two packed latents and the mask's pixels (FLUX.1 Fill: 64 + 64 + 256)."""
    patch = 2 * 2
    return 2 * latent_channels * patch + vae_factor**2 * patch
