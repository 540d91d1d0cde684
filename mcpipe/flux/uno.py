"""LoRA files as UNO publishes them, which serve as a start for stages 1 and 2.

UNO names layers after Black Forest Labs' code and adapts queries, keys and values as one layer:

    double_blocks.N.processor.qkv_lora1 / proj_lora1    image and references: to_q, to_k, to_v / to_out.0
    double_blocks.N.processor.qkv_lora2 / proj_lora2    text: add_q_proj, add_k_proj, add_v_proj / to_add_out
    single_blocks.N.processor.qkv_lora / proj_lora      to_q, to_k, to_v / proj_out

each with ``down.weight`` (rank, in) and ``up.weight`` (out, rank). Split in three, every part keeps the common
``down``, so that it computes the same. The scale is 1, as here.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

PLACES = {
    ("double", "qkv_lora1"): ("attn.to_q", "attn.to_k", "attn.to_v"),
    ("double", "qkv_lora2"): ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    ("double", "proj_lora1"): ("attn.to_out.0",),
    ("double", "proj_lora2"): ("attn.to_add_out",),
    ("single", "qkv_lora"): ("attn.to_q", "attn.to_k", "attn.to_v"),
    ("single", "proj_lora"): ("proj_out",),
}
"""Layers of a block in diffusers, by kind of block and UNO's name."""
BLOCKS = {"double": "transformer_blocks", "single": "single_transformer_blocks"}
KEY = re.compile(r"(?:diffusion_model\.)?(double|single)_blocks\.(\d+)\.processor\.(\w+)\.(down|up)\.weight")


def is_uno(keys: Iterable[str]) -> bool:
    """Whether the names are UNO's."""
    return any(KEY.fullmatch(key) for key in keys)


def from_uno(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of diffusers.

    Raises:
        ValueError: a name is unknown, or half of a pair is missing.
    """
    tensors: dict[str, Tensor] = {}
    for key, weight in weights.items():
        match = KEY.fullmatch(key)
        places = PLACES.get((match[1], match[3])) if match else None
        if match is None or places is None:
            raise ValueError(f"{key!r} is no layer that UNO adapts")
        other = key.replace(".down.", ".up.") if match[4] == "down" else key.replace(".up.", ".down.")
        if other not in weights:
            raise ValueError(f"{key!r} lacks its other half, {other!r}")
        if match[4] == "up" and len(weight) % len(places):
            raise ValueError(f"{key!r} has {len(weight)} outputs, which are not {len(places)} layers of one width")
        parts = [weight.clone() for _ in places] if match[4] == "down" else weight.chunk(len(places))
        part = "lora_A" if match[4] == "down" else "lora_B"
        for place, some in zip(places, parts, strict=True):
            tensors[f"{BLOCKS[match[1]]}.{match[2]}.{place}.{part}.weight"] = some.contiguous()
    return tensors
