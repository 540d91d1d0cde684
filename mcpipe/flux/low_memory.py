"""Generation on devices with little memory: frozen weights in 8 bits, and parts on the device only when they run.

    high     everything on the device, as it was trained
    medium   the transformer's frozen weights stored in FP8 (e4m3) and computed with in the precision of the device, the
             adapter in that precision, and one of text encoders, transformer and VAE on the device at a time
    low      every layer on the device only while it runs; nothing is rounded but the adapter, to the device's precision

Experts and routers stay live in every mode: logits are computed in float32, and what the chosen experts add stands
beside the output of the frozen layer, whatever its weights are stored in.
"""

import re
from typing import Literal, get_args

import torch
from accelerate import cpu_offload
from accelerate.hooks import AlignDevicesHook
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from mcpipe.flux.adapters import NAME
from mcpipe.flux.backbone import FluxPipeline, FluxTransformer2DModel, apply_layerwise_casting
from mcpipe.flux.moe_lora import MoELoraLinear

Memory = Literal["low", "medium", "high"]
MODES: tuple[Memory, ...] = get_args(Memory)
STORED = torch.float8_e4m3fn
KEPT = (r"embed", r"^norm_out", r"^proj_out$", r"lora_")
"""Modules, by patterns of their names, that are not rounded: the ends of the network, which are small; the adapter."""


def check_memory(memory: str) -> None:
    """Make sure that a mode exists.

    Raises:
        ValueError: it does not.
    """
    if memory not in MODES:
        raise ValueError(f"memory is one of {', '.join(MODES)}, not {memory!r}")


def reduce_memory(pipeline: FluxPipeline, memory: Memory) -> None:
    """Bring a pipeline with its adapter into a mode; but for ``high`` it comes in main memory."""
    if memory == "high":
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = pipeline.transformer.x_embedder.weight.dtype
    for name, parameter in pipeline.transformer.named_parameters():
        if f".{NAME}." in name:
            parameter.data = parameter.data.to(precision)
    if memory == "low":
        for part in (pipeline.text_encoder, pipeline.text_encoder_2, pipeline.transformer, pipeline.vae):
            offload_in_parts(part, device)
        return
    round_frozen(pipeline.transformer, precision)
    if device.type == "cuda":  # on a CPU all parts are where they run
        pipeline.enable_model_cpu_offload(device=device)


def round_frozen(transformer: FluxTransformer2DModel, precision: torch.dtype) -> None:
    """Store the frozen weights of a transformer's layers in FP8; each is cast to ``precision`` when it runs."""
    apply_layerwise_casting(transformer, STORED, precision, KEPT)


def num_rounded(transformer: nn.Module) -> int:
    """Frozen weights of a transformer that `round_frozen` would store in FP8."""
    layers = {name: layer for name, layer in transformer.named_modules() if isinstance(layer, nn.Linear)}
    rounded = [
        layer
        for name, layer in layers.items()
        if not isinstance(layer, BaseTunerLayer) and not any(re.search(kept, name) for kept in KEPT)
    ]
    return sum(weight.numel() for layer in rounded for weight in layer.parameters())


def largest_layer(transformer: nn.Module) -> int:
    """Weights of the largest layer that `offload_in_parts` moves as a whole."""
    layers = [layer for layer in transformer.modules() if isinstance(layer, nn.Linear | MoELoraLinear)]
    return max(sum(weight.numel() for weight in layer.parameters()) for layer in layers)


def offload_in_parts(part: nn.Module, device: torch.device) -> None:
    """Keep a model's weights in main memory, and each layer's on the device only while it runs.

    A layer with experts comes as a whole, because it reads the weights of its parts itself.
    """
    cpu_offload(
        part, device, offload_buffers=len(part._parameters) > 0, preload_module_classes=[MoELoraLinear.__name__]
    )


def is_offloaded_in_parts(module: nn.Module) -> bool:
    """Whether a model's weights come to the device layer by layer."""
    hooks = (getattr(layer, "_hf_hook", None) for layer in module.modules())
    return any(isinstance(hook, AlignDevicesHook) and hook.offload for hook in hooks)
