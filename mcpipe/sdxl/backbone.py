"""SDXL and its IP-Adapter as diffusers loads them: a pipeline's folder, and the adapter's published files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from torch import nn

__all__ = ["StableDiffusionXLPipeline", "UNet2DConditionModel", "load_sdxl", "reads_hidden_states"]

T = TypeVar("T")

INDEX = "model_index.json"
FAULTS = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError)


def load_sdxl(folder: Path, ip_adapter: Path, image_encoder: Path) -> StableDiffusionXLPipeline:
    """The pipeline of a folder with an IP-Adapter, frozen and ready: bfloat16 on a GPU, float32 on a CPU.

    ``ip_adapter`` is a file of weights such as ``sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors``, plain or Plus,
    and ``image_encoder`` the folder of the CLIP vision model that it was trained with. The VAE is always float32.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: one is damaged or of another kind, or the network predicts something else than noise.
    """
    parts = {
        folder / INDEX: "an SDXL pipeline saved by diffusers",
        ip_adapter: "an IP-Adapter's weights",
        image_encoder / "config.json": "the CLIP vision model of the IP-Adapter",
    }
    for place, what in parts.items():
        if not place.is_file():
            raise FileNotFoundError(f"no file {place}; it should be part of {what}")
    diffusers_logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    pipeline = _with_clear_errors(
        f"{folder} is no usable SDXL pipeline",
        lambda: StableDiffusionXLPipeline.from_pretrained(
            folder, dtype=dtype, local_files_only=True, add_watermarker=False
        ),
    )
    _with_clear_errors(
        f"{ip_adapter} with {image_encoder} is no usable IP-Adapter for {folder}",
        lambda: _load_ip_adapter(pipeline, ip_adapter.resolve(), image_encoder.resolve()),
    )
    predicted = pipeline.scheduler.config.prediction_type
    if predicted != "epsilon":
        raise ValueError(
            f"{folder} predicts {predicted!r}; only SDXL networks that predict noise (epsilon) can be trained"
        )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    pipeline.vae.float()
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False).eval()
    return pipeline


def reads_hidden_states(unet: UNet2DConditionModel) -> bool:
    """Whether the IP-Adapter reads all of an image's tokens (Plus), or its one embedding (plain)."""
    projection = unet.encoder_hid_proj
    assert isinstance(projection, MultiIPAdapterImageProjection), "loaded with an IP-Adapter"
    return not isinstance(projection.image_projection_layers[0], ImageProjection)


def _load_ip_adapter(pipeline: StableDiffusionXLPipeline, weights: Path, image_encoder: Path) -> None:
    root = Path(os.path.commonpath([weights.parent, image_encoder]))
    pipeline.load_ip_adapter(
        str(root),
        subfolder=weights.parent.relative_to(root).as_posix(),
        weight_name=weights.name,
        image_encoder_folder=f"./{image_encoder.relative_to(root).as_posix()}",  # "/": relative to the root
        local_files_only=True,
    )


def _with_clear_errors(what: str, load: Callable[[], T]) -> T:
    try:
        return load()
    except FAULTS as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{what}: {reason}") from error
