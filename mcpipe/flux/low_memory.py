"""Generation on devices with little memory: parts on the device only when they run, and weights in fewer bits.

    high     everything on the device
    medium   one of text encoders, transformer and VAE on the device at a time
    low      every layer on the device only while it runs

How frozen weights are stored (`mcpipe.flux.quantization`) is chosen apart: in FP8 with ``medium``, as they are with
the others, unless another form is asked for; ``low`` moves single layers and rounds nothing. Only with ``high`` and
weights as they are, the adapter keeps float32; otherwise it has the precision of the device. Experts and routers stay
live in every mode: logits are computed in float32, and what the chosen experts add stands beside the output of the
frozen layer, whatever its weights are stored in.
"""

from typing import Literal, get_args

import torch
from accelerate import cpu_offload
from accelerate.hooks import AlignDevicesHook
from torch import nn

from mcpipe.flux.adapters import NAME
from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.moe_lora import MoELoraLinear
from mcpipe.flux.quantization import Quantization, check_quantization, quantize

Memory = Literal["low", "medium", "high"]
MODES: tuple[Memory, ...] = get_args(Memory)
QUANTIZED: dict[Memory, Quantization] = {"low": "none", "medium": "fp8", "high": "none"}
"""Form of the frozen weights in a mode, unless another one is asked for."""


def check_memory(memory: str, quantization: str | None = None) -> tuple[Memory, Quantization]:
    """A mode and the form of its frozen weights; without ``quantization``, the mode's own.

    Raises:
        ValueError: there is no such mode or form, they exclude each other, or a package is missing.
    """
    if memory not in MODES:
        raise ValueError(f"memory is one of {', '.join(MODES)}, not {memory!r}")
    form = check_quantization(QUANTIZED[memory] if quantization is None else quantization)
    if memory == "low" and form != "none":
        raise ValueError(f"low memory moves layer by layer and rounds nothing; use medium or high with {form}")
    return memory, form


def reduce_memory(pipeline: FluxPipeline, memory: Memory, quantization: Quantization) -> None:
    """Bring a pipeline with its adapter into a mode; it comes in main memory, unless it is to be left as it is.

    Raises:
        ValueError: see `mcpipe.flux.quantization.check_quantization`.
    """
    if is_plain(memory, quantization):
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
    quantize(pipeline, quantization, precision, device)
    if memory == "high":
        pipeline.to(device)
    elif device.type == "cuda":  # on a CPU all parts are where they run
        pipeline.enable_model_cpu_offload(device=device)


def is_plain(memory: Memory, quantization: Quantization) -> bool:
    """Whether a pipeline is used as it is loaded: all of it on the device, and nothing rounded."""
    return memory == "high" and quantization == "none"


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
