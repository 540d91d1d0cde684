"""Frozen weights in fewer bits, with the adapter live beside them.

    none    as they are
    fp8     8 bits (e4m3), cast to the precision of the computation when their layer runs (diffusers' layerwise casting)
    nf4     4 bits in blocks of 64 with a scale each, and the scales in 8 bits (QLoRA, section 3), by bitsandbytes

Linear layers of the transformer's blocks and of T5 are rounded; the ends of the network, embeddings, norms, CLIP and
the VAE, which are small, are not. An expert or a plain LoRA stands beside a rounded layer as beside any other: what it
adds is computed from its own weights, which keep their precision.
"""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal, cast, get_args

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from mcpipe.flux.backbone import FluxPipeline, apply_layerwise_casting

Quantization = Literal["none", "fp8", "nf4"]
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)
STORED = torch.float8_e4m3fn
KEPT = (r"embed", r"^norm_out", r"^proj_out$", r"lora_")
"""Modules of a transformer, by patterns of their names, that are not rounded: its small ends and the adapter."""
KEPT_T5 = (r"shared", r"embed", r"relative_attention_bias")
"""Those of T5: embeddings of tokens and of distances."""
BLOCK = 64
"""Weights that share a scale in NF4. Layers whose rows are no whole number of blocks are kept: bitsandbytes 0.50
dequantizes them wrongly on processors with AVX-512. No layer of FLUX.1-dev and T5-XXL is of this kind."""
NESTED = 256
"""Scales of blocks that share a scale of their own."""
BYTES: dict[Quantization, float] = {"none": 2.0, "fp8": 1.0, "nf4": 0.5 + 1 / BLOCK + 4 / (BLOCK * NESTED)}
"""Memory of a rounded weight on a GPU, its share of the scales included; of one that is not rounded, in bfloat16."""


def check_quantization(quantization: str) -> Quantization:
    """The form of frozen weights that a text names, which can be used here.

    Raises:
        ValueError: there is no such form, or the package that it needs is not installed.
    """
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"quantize is one of {', '.join(QUANTIZATIONS)}, not {quantization!r}")
    if quantization == "nf4" and find_spec("bitsandbytes") is None:
        raise ValueError("nf4 needs bitsandbytes, which is not installed; run: pip install -e '.[lowmem]'")
    return cast(Quantization, quantization)


def quantize(pipeline: FluxPipeline, quantization: Quantization, precision: torch.dtype, device: torch.device) -> None:
    """Round the frozen weights of a pipeline whose adapter is in place; ``precision`` is that of the computation.

    Layers are rounded one after the other on ``device``, so that it never holds the weights in full precision. With
    NF4 the rounded layers stay there; all other weights stay where they are.

    Raises:
        ValueError: see `check_quantization`.
    """
    check_quantization(quantization)
    t5 = pipeline.text_encoder_2
    if quantization == "fp8":
        apply_layerwise_casting(pipeline.transformer, STORED, precision, KEPT)
        for layer in _feed_forward(t5):
            apply_layerwise_casting(layer, STORED, precision, None)  # as a whole: it reads the dtype of its last weight
        apply_layerwise_casting(t5, STORED, precision, (*KEPT_T5, "DenseReluDense"))
    if quantization == "nf4":
        for model, kept in ((pipeline.transformer, KEPT), (t5, KEPT_T5)):
            for name, layer in list(quantizable(model, "nf4", kept)):
                parent, _, place = name.rpartition(".")
                setattr(model.get_submodule(parent), place, _in_nf4(layer, precision, device))


def quantizable(
    model: nn.Module, quantization: Quantization, kept: tuple[str, ...] = KEPT
) -> Iterator[tuple[str, nn.Linear]]:
    """Layers of a model that `quantize` rounds, by name; ``kept`` are patterns of the names of those it does not."""
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Linear) or isinstance(layer, BaseTunerLayer):
            continue
        fits = quantization == "fp8" or (quantization == "nf4" and layer.in_features % BLOCK == 0)
        if fits and not any(re.search(pattern, name) for pattern in kept):
            yield name, layer


def num_quantized(model: nn.Module, quantization: Quantization) -> int:
    """Weights of a transformer that `quantize` rounds. FP8 takes biases along, NF4 does not."""
    layers = [layer for _, layer in quantizable(model, quantization)]
    biases = quantization == "fp8"
    return sum(weight.numel() for layer in layers for weight in layer.parameters() if biases or weight.ndim > 1)


def is_quantized(model: nn.Module) -> bool:
    """Whether frozen weights of a model are stored in fewer bits."""
    return any(weight.dtype == STORED or hasattr(weight, "quant_state") for weight in model.parameters())


def _feed_forward(t5: nn.Module) -> Iterator[nn.Module]:
    return (layer for name, layer in t5.named_modules() if name.endswith("DenseReluDense"))


def _in_nf4(layer: nn.Linear, precision: torch.dtype, device: torch.device) -> nn.Linear:
    """The layer with its weight in NF4 on ``device``."""
    from bitsandbytes.nn import Linear4bit, Params4bit  # pyright: ignore[reportMissingImports]

    with torch.device("meta"):
        rounded = Linear4bit(
            layer.in_features, layer.out_features, layer.bias is not None, precision, quant_type="nf4",
            quant_storage=precision,
        )  # fmt: skip
    # Packed bits are stored under the name of the computation's dtype: T5 casts its input to that of its last weight.
    packed = Params4bit(
        layer.weight.data, blocksize=BLOCK, quant_type="nf4", quant_storage=precision, module=rounded
    ).to(device)
    rounded.weight = packed
    rounded.bias = layer.bias
    rounded.support_avx512bf16_for_cpu = False  # its kernel would round inputs and scales to bfloat16
    return rounded.train(layer.training)
