"""A trainable LoRA on top of a frozen adapter: with it the policy, without it the reference of preference training.

    W' = W + B_start A_start + B A,    the reference leaves B A out: the same weights in memory, no second copy

It stands where the adapter has plain LoRA; layers with experts stay as they are. Both have scale 1, so that they are
one LoRA of the summed rank: the result is written as an ordinary adapter (`mcpipe.flux.adapters`), whose experts are
filled up with directions that add nothing.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn
from torch.nn.functional import pad

from mcpipe.flux.adapters import NAME, AdapterSpec, save_adapter, trainable
from mcpipe.flux.backbone import FluxTransformer2DModel
from mcpipe.flux.moe_lora import expert_layers

ADDED = "preference"
"""Name of the added LoRA in memory."""


def add_lora(transformer: FluxTransformer2DModel, rank: int, seed: int) -> None:
    """Freeze the adapter of a transformer and add a fresh LoRA that does not change what it computes yet.

    Raises:
        ValueError: there is no layer with plain LoRA.
    """
    experts = {name for name, _ in expert_layers(transformer)}
    names = [name for name, layer in lora_layers(transformer) if name not in experts]
    if not names:
        raise ValueError("the start adapter has no layer with plain LoRA, on which another one could be added")
    transformer.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=_pattern(names))
    with torch.random.fork_rng(), warnings.catch_warnings(action="ignore", category=UserWarning):  # two adapters: meant
        torch.manual_seed(seed)
        inject_adapter_in_model(config, transformer, ADDED)
    for name, layer in lora_layers(transformer):
        layer.set_adapter([NAME, ADDED] if name not in experts else [NAME])
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad_(f".{ADDED}." in name)
    for parameter in trainable(transformer).values():
        parameter.data = parameter.data.float()


def lora_layers(transformer: nn.Module) -> list[tuple[str, LoraLayer]]:
    """All layers with an adapter, by name."""
    return [(name, module) for name, module in transformer.named_modules() if isinstance(module, LoraLayer)]


@contextmanager
def reference_policy(transformer: nn.Module) -> Iterator[None]:
    """Within this context the transformer computes without the added LoRA, and without a gradient."""
    layers = [layer for _, layer in lora_layers(transformer) if ADDED in layer.lora_A]
    before = [layer._active_adapter for layer in layers]
    try:
        for layer in layers:
            layer._active_adapter = [NAME]
        with torch.no_grad():
            yield
    finally:
        for layer, active in zip(layers, before, strict=True):
            layer._active_adapter = active


def combined_spec(spec: AdapterSpec, rank: int) -> AdapterSpec:
    """Specification of a start adapter together with an added LoRA of a rank."""
    return spec.model_copy(update={"rank": spec.rank + rank})


def save_combined(
    transformer: FluxTransformer2DModel, spec: AdapterSpec, folder: Path, gathered: Mapping[str, Tensor] | None = None
) -> None:
    """Write the start adapter and the added LoRA as one adapter of form ``spec`` into a folder that exists.

    ``gathered`` holds the trained weights by name, where they are sharded.
    """
    weights = {name: parameter.detach() for name, parameter in transformer.named_parameters()} | dict(gathered or {})
    experts = {name: layer.num_experts for name, layer in expert_layers(transformer)}
    combined = {}
    for name in weights:
        layer, separator, part = name.partition(".lora_")
        if not separator or f".{NAME}." not in name or part.startswith("router"):
            continue
        own, added = weights[name].cpu(), weights.get(name.replace(f".{NAME}.", f".{ADDED}."))
        rows = part.startswith("A")
        if layer in experts:
            combined[name] = _filled_up(own, experts[layer], spec.rank, rows=rows)
        elif added is not None:
            combined[name] = torch.cat([own, added.cpu().to(own.dtype)], 0 if rows else 1)
    save_adapter(transformer, spec, folder, combined)


def _filled_up(weight: Tensor, num_experts: int, rank: int, *, rows: bool) -> Tensor:
    """A matrix of experts with zeros up to a rank."""
    if rows:
        by_expert = weight.unflatten(0, (num_experts, -1))
        return pad(by_expert, (0, 0, 0, rank - by_expert.shape[1])).flatten(0, 1)
    by_expert = weight.unflatten(1, (num_experts, -1))
    return pad(by_expert, (0, rank - by_expert.shape[2])).flatten(1)


def _pattern(names: list[str]) -> str:
    """A pattern of exactly these layers; peft would take a list for endings of names."""
    assert names, "checked by the caller"
    return "|".join(name.replace(".", r"\.") for name in names)
