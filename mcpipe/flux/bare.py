"""A transformer without its adapter, as stock diffusers saves it."""

from typing import cast

import torch

from mcpipe.flux.adapters import NAME
from mcpipe.flux.backbone import FluxTransformer2DModel


def bare_transformer(transformer: FluxTransformer2DModel) -> FluxTransformer2DModel:
    """The transformer without its adapter: a model of its own, which shares the weights.

    Raises:
        ValueError: its weights are not in memory.
    """
    if any(parameter.is_meta for parameter in transformer.parameters()):
        raise ValueError("weights are offloaded to the disk; load the pipeline without offloading to save it")
    weights = {
        name.replace(".base_layer.", "."): weight
        for name, weight in transformer.state_dict().items()
        if f".{NAME}." not in name
    }
    with torch.device("meta"):
        bare = cast(FluxTransformer2DModel, FluxTransformer2DModel.from_config(transformer.config))
    bare.load_state_dict(weights, assign=True)
    return bare
