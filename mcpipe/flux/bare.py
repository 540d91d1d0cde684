"""A transformer without its adapter, as stock diffusers saves it."""

from typing import cast

import torch
from peft.tuners.lora.layer import LoraLayer

from mcpipe.flux.adapters import NAME
from mcpipe.flux.backbone import FluxPipeline, FluxTransformer2DModel
from mcpipe.flux.quantization import is_quantized


def check_separable(pipeline: FluxPipeline) -> None:
    """Make sure that a pipeline's adapter can be written apart from its generator.

    Raises:
        ValueError: weights of the transformer are merged with it or not in memory, or there are other adapters.
    """
    models = (pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2)
    others = sorted({name for model in models for name in vars(model).get("peft_config", {})} - {NAME})
    if others:
        raise ValueError(f"another LoRA is loaded, {others[0]}; call delete_adapters({others[0]!r}) before saving")
    if any(module.merged for module in pipeline.transformer.modules() if isinstance(module, LoraLayer)):
        raise ValueError("the adapter is merged into the generator; call unfuse_lora() before saving")
    if is_quantized(pipeline.transformer):
        raise ValueError('weights are rounded; load the pipeline with memory="high" and without quantize to save it')
    if any(parameter.is_meta for parameter in pipeline.transformer.parameters()):
        raise ValueError("weights are offloaded one by one; load the pipeline without sequential offloading to save it")


def bare_transformer(transformer: FluxTransformer2DModel) -> FluxTransformer2DModel:
    """The transformer without its adapter, of which `check_separable` holds: a model that shares the weights."""
    weights = {
        name.replace(".base_layer.", "."): weight
        for name, weight in transformer.state_dict().items()
        if f".{NAME}." not in name
    }
    with torch.device("meta"):
        bare = cast(FluxTransformer2DModel, FluxTransformer2DModel.from_config(transformer.config))
    bare.load_state_dict(weights, assign=True)
    return bare
