"""The FLUX pipeline as diffusers loads it; the only module that imports diffusers."""

import json
from pathlib import Path
from typing import cast

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from diffusers.hooks import apply_layerwise_casting
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.utils import logging as diffusers_logging
from diffusers.utils.torch_utils import get_module_execution_device
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

__all__ = [
    "FeedForward",
    "FluxPipeline",
    "FluxTransformer2DModel",
    "apply_layerwise_casting",
    "check_index",
    "execution_device",
    "load_generator",
    "rotated",
]

INDEX = "model_index.json"
CLASSES = ("FluxPipeline", "FluxKontextPipeline")
"""Pipelines whose parts are those of a FluxPipeline; FLUX.1 Kontext, PSR's base, is saved as the second."""


def load_generator(folder: Path, *, on_device: bool = True) -> FluxPipeline:
    """The pipeline saved in a folder, frozen and ready: bfloat16 on a GPU, float32 on a CPU; the VAE always float32.

    Unless it is wanted ``on_device``, it stays in main memory, in the precision of the device.

    Raises:
        FileNotFoundError: the folder or its index is missing.
        ValueError: the folder holds no FLUX pipeline, or a part of it is missing or damaged.
    """
    check_index(folder, "generator", *CLASSES)
    diffusers_logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    try:
        pipeline = FluxPipeline.from_pretrained(folder, dtype=dtype, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"generator {folder} cannot be loaded; a part is missing or damaged: {reason}") from error
    pipeline.set_progress_bar_config(disable=True)
    if on_device:
        pipeline.to(device)
    pipeline.vae.float()
    for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        part.requires_grad_(False).eval()
    return pipeline


def execution_device(module: nn.Module) -> torch.device:
    """The device that a module's inputs have to be on, which is not that of its weights where these are offloaded."""
    return get_module_execution_device(module)


def check_index(folder: Path, called: str, *classes: str) -> None:
    """Make sure that a folder holds a pipeline that diffusers saved, of one of some classes.

    Raises:
        FileNotFoundError: the folder or its index is missing; the message says what it is ``called``.
        ValueError: the index is damaged or names another class.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no {called} folder {folder}; it should hold a {classes[0]} saved by diffusers")
    index = folder / INDEX
    if not index.is_file():
        raise FileNotFoundError(f"{folder} holds no {INDEX}; it should be a {classes[0]} saved by diffusers")
    try:
        kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise ValueError(f"{index} is damaged: {error}") from error
    if kind not in classes:
        raise ValueError(f"{folder} holds a {kind}, not a {classes[0]}")


def rotated(
    vectors: Float[Tensor, "batch tokens heads width"],
    rotary: tuple[Float[Tensor, "tokens width"], Float[Tensor, "tokens width"]],
) -> Float[Tensor, "batch tokens heads width"]:
    """Queries or keys with their positions turned in, exactly as the attention of the transformer does it."""
    return cast(Tensor, apply_rotary_emb(vectors, rotary, sequence_dim=1))  # diffusers announces a tuple
