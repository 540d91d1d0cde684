"""Check that stored weights fit an adapter, with one sentence about the first mismatch."""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Size

from mcpipe.flux.backbone import FluxTransformer2DModel

Shapes = Mapping[str, Size]
"""Shapes of weights by their names without the adapter's name."""

BLOCK = re.compile(r"(single_)?transformer_blocks\.(\d+)\.")


def generator_mark(transformer: FluxTransformer2DModel) -> str:
    """Identity of a generator's weights: a digest of its outermost layers, in hexadecimal digits.

    It is the same in float32 and bfloat16; empty where the weights are not in memory.
    """
    weights = [transformer.x_embedder.weight, transformer.context_embedder.weight, transformer.proj_out.weight]
    if any(weight.is_meta for weight in weights):
        return ""
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(weight.detach().cpu().to(torch.bfloat16).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def mismatch(stored: Shapes, adapter: Shapes, optional: Collection[str]) -> str | None:
    """What of the stored weights does not fit the adapter; only ``optional`` ones may be missing."""
    required = adapter.keys() - set(optional)
    if num_blocks(stored) != num_blocks(required):
        return f"it is for {_in_words(num_blocks(stored))}, this generator has {_in_words(num_blocks(required))}"
    unknown = sorted(stored.keys() - adapter.keys())
    if unknown:
        return f"{len(unknown)} weights have no place in this generator, first {unknown[0]}"
    for key in sorted(stored, key=lambda key: (".lora_router." not in key, key)):
        if stored[key] != adapter[key]:
            return _difference(key, stored[key], adapter[key])
    missing = sorted(required - stored.keys())
    if missing:
        return f"{len(missing)} weights are missing, first {missing[0]}"
    return None


def lora_mismatch(stored: Shapes, adapter: Shapes) -> str | None:
    """What of a LoRA's weights does not fit an adapter, which may have more layers, ranks and experts."""
    theirs, own = num_blocks(stored), num_blocks(adapter)
    if theirs[0] > own[0] or theirs[1] > own[1]:
        return f"it is for {_in_words(theirs)}, this generator has {_in_words(own)}"
    if unknown := sorted(stored.keys() - adapter.keys()):
        return (
            f"{len(unknown)} weights belong to layers that an adapter leaves alone, first {unknown[0]}; it has "
            "attention layers and outputs of single blocks"
        )
    for key in sorted(stored):
        rows, columns = stored[key]
        fitting = (rows, adapter[key][1]) if ".lora_A." in key else (adapter[key][0], columns)
        if (rows, columns) != fitting:
            return f"{key} is {(rows, columns)}, but {fitting} in this generator"
    return None


def num_blocks(keys: Iterable[str]) -> tuple[int, int]:
    """Double and single blocks, by the largest number that occurs in names."""
    numbers: tuple[set[int], set[int]] = ({-1}, {-1})
    for key in keys:
        if match := BLOCK.match(key):
            numbers[match[1] is not None].add(int(match[2]))
    return max(numbers[0]) + 1, max(numbers[1]) + 1


def _in_words(blocks: tuple[int, int]) -> str:
    return f"{blocks[0]} double and {blocks[1]} single blocks"


def _difference(key: str, stored: Size, adapter: Size) -> str:
    layer, part, _ = key.rsplit(".", 2)
    ranked, width = (0, 1) if part == "lora_A" else (1, 0)
    if part in ("lora_A", "lora_B") and stored[width] == adapter[width]:
        return f"its rank is {stored[ranked]} at {layer}, the adapter's {adapter[ranked]}"
    if part == "lora_router" and stored[1] == adapter[1]:
        return f"it has {stored[0]} experts at {layer}, the adapter {adapter[0]}"
    return f"{key} is {tuple(stored)}, but {tuple(adapter)} in this generator"
