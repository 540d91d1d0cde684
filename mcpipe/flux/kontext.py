"""An editing model in the format of FLUX.1 Kontext: a ``FluxKontextPipeline`` that follows an instruction.

Its transformer sees the latents of the given image as further tokens behind the noisy ones, with 1 in place of 0 as
their first position id. diffusers by itself brings the given image to the nearest of seventeen sizes of a megapixel
(``_auto_resize``) and the result to an area of ``max_area``; here both have the side that the settings name.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from pydantic import Field
from safetensors import SafetensorError

from mcpipe.core.params import Params
from mcpipe.flux.backbone import check_index, diffusers_logging

if TYPE_CHECKING:
    from diffusers import FluxKontextPipeline

KIND = "FluxKontextPipeline"
PATCH = 2
"""Side of a token in latents."""


class Editor(Protocol):
    """A model that redraws an image after an instruction."""

    def edited(self, picture: UInt8[np.ndarray, "H H 3"], instruction: str, *, seed: int) -> UInt8[np.ndarray, "S S 3"]:
        """A square image after an instruction, from the noise of a seed."""
        ...


class EditorParams(Params):
    """How an image is edited."""

    side: int = Field(ge=16)
    """Side in pixels of the image that the model sees, and of the one that it draws (FLUX.1 Kontext: 1024)."""
    num_steps: int = Field(ge=1)
    """Number of Euler steps along the ODE."""
    guidance: float = Field(ge=0)
    """Guidance scale, an input of the guidance-distilled transformer (FLUX.1 Kontext: 2.5)."""


class KontextEditor:
    """An editor of diffusers' class."""

    def __init__(self, folder: Path, params: EditorParams) -> None:
        """Load the pipeline on the best available device.

        Raises:
            FileNotFoundError: there is no such folder, or it holds no pipeline.
            ValueError: it holds another pipeline, a part is missing, damaged or does not fit the others, or the side
                does not fit the pipeline.
        """
        self._pipeline = load_kontext(folder)
        self._params = params
        multiple = PATCH * self._pipeline.vae_scale_factor
        if params.side % multiple:
            raise ValueError(f"editor.side {params.side} should be a multiple of {multiple} px for the VAE of {folder}")

    def edited(self, picture: UInt8[np.ndarray, "H H 3"], instruction: str, *, seed: int) -> UInt8[np.ndarray, "S S 3"]:
        """A square image after an instruction, from the noise of a seed; S is the side in the settings.

        Raises:
            ValueError: the given image is not square.
        """
        height, width = picture.shape[:2]
        if height != width:
            raise ValueError(f"an image to edit should be square, found {width} x {height} px")
        side = self._params.side
        drawn = self._pipeline(
            image=Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS),
            prompt=instruction,
            height=side,
            width=side,
            max_area=side**2,
            _auto_resize=False,
            num_inference_steps=self._params.num_steps,
            guidance_scale=self._params.guidance,
            max_sequence_length=self._pipeline.tokenizer_2.model_max_length,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
        ).images[0]
        return (np.asarray(drawn) * 255).round().astype(np.uint8)


def load_kontext(folder: Path) -> "FluxKontextPipeline":
    """The pipeline of a folder, frozen: bfloat16 on a GPU, float32 on a CPU.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no pipeline.
        ValueError: it holds another pipeline, or a part is missing, damaged or does not fit the others.
    """
    from diffusers import FluxKontextPipeline

    check_index(folder, "editor", KIND)
    diffusers_logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    try:
        pipeline = FluxKontextPipeline.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"editor {folder} cannot be loaded; a part is missing or damaged: {reason}") from error
    channels, expected = pipeline.transformer.config.in_channels, PATCH**2 * pipeline.vae.config.latent_channels
    if channels != expected:
        raise ValueError(
            f"the transformer of {folder} takes {channels} channels, but with this VAE it needs {expected}"
        )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        part.requires_grad_(False).eval()
    return pipeline
