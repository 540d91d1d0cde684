"""Adapters initialised from a published LoRA file."""

import logging
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from mcpipe.flux.adapters import (
    NAME,
    PLAIN_FILE,
    SPEC_FILE,
    AdapterSpec,
    add_adapter,
    read_weights,
    trainable,
)
from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.lora_files import layout_of
from mcpipe.flux.mismatch import generator_mark, lora_mismatch
from mcpipe.flux.moe_lora import expert_layers

logger = logging.getLogger(__name__)


def start_lora(pipeline: FluxPipeline, file: Path, spec: AdapterSpec, seed: int) -> None:
    """Give a pipeline an adapter of form ``spec`` that computes what a LoRA file adds in stock diffusers.

    `mcpipe.flux.lora_files` knows the layouts. Layers that the file leaves alone add nothing at first; a smaller rank
    fills the first directions of a layer, and the others start as in a fresh adapter. Every expert starts as a copy.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds something else, or does not fit this generator and form.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no LoRA file {file} to start from")
    weights = read_weights(file, generator_mark(pipeline.transformer))
    rank = max(_ranks(weights))
    if rank > spec.rank:
        raise ValueError(f"{file} has rank {rank}; it cannot go on with rank {spec.rank}, a smaller one")
    add_adapter(pipeline.transformer, spec, seed)
    parameters = {
        name.replace(f".{NAME}.", "."): parameter for name, parameter in trainable(pipeline.transformer).items()
    }
    fault = lora_mismatch(
        {key: weight.shape for key, weight in weights.items()},
        {key: parameter.shape for key, parameter in parameters.items()},
    )
    if fault:
        raise ValueError(f"{file} does not fit: {fault}; it has {layout_of(file)}")
    experts = {name: layer.num_experts for name, layer in expert_layers(pipeline.transformer)}
    for key, weight in weights.items():
        layer, part, _ = key.rsplit(".", 2)
        _fill(parameters[key].data, weight, part, experts.get(layer, 1))
    num_expected = sum(".lora_A." in key for key in parameters)
    logger.info(
        "%s: %d of %d layers start from it, at rank %d of %d", file, len(weights) // 2, num_expected, rank, spec.rank
    )


def import_uno(file: Path, folder: Path, image_size: int, reference_size: int) -> AdapterSpec:
    """Write UNO's LoRA as an adapter from which stages 1 and 2 can start, into a folder that exists.

    Args:
        file: Such as UNO's ``dit_lora.safetensors``.
        folder: Gets the adapter's files.
        image_size: Side in pixels of the images that it is to be used for (UNO: 512).
        reference_size: Side in pixels of their references (UNO: 320 for several of them).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or holds something else, or its layers differ in rank.
    """
    weights = read_weights(file, "")
    ranks = _ranks(weights)
    if len(ranks) != 1:
        raise ValueError(f"{file} should hold a LoRA of one rank, found ranks {sorted(ranks)}")
    spec = AdapterSpec(rank=ranks.pop(), experts=None, image_size=image_size, reference_size=reference_size)
    save_file({f"transformer.{key}": weight for key, weight in weights.items()}, folder / PLAIN_FILE)
    (folder / SPEC_FILE).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return spec


def _ranks(weights: dict[str, Tensor]) -> set[int]:
    return {len(weight) for key, weight in weights.items() if ".lora_A." in key}


def _fill(parameter: Tensor, weight: Tensor, part: str, num_experts: int) -> None:
    """Write a layer's matrix into the first directions of every expert; a plain layer is a single one."""
    if part == "lora_A":
        parameter.unflatten(0, (num_experts, -1))[:, : len(weight)] = weight
    else:
        parameter.unflatten(1, (num_experts, -1))[:, :, : weight.shape[1]] = weight[:, None]
