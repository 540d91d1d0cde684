"""LoRA files of any common layout, brought to one: diffusers' names, matrices ``lora_A`` and ``lora_B``, scale 1.

Layouts are converted by diffusers' own converters; what decides the scale (alpha, rank, patterns, rsLoRA) is multiplied
into ``lora_B``, so that the stored weights compute what stock diffusers computes with the file.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.uno import from_uno, is_uno

METADATA = "lora_adapter_metadata"
"""Entry of a file's header in which diffusers keeps peft's configuration."""
WRAPPERS = re.compile(r"^(?:base_model\.model\.|module\.|_orig_mod\.)+")
"""Beginnings that peft, distributed training and compilation put before every name."""
PREFIX = "transformer."
UNSUPPORTED = {
    r"lokr_": "LoKr factors",
    r"hada_": "LoHa factors",
    r"oft_|\.oft_": "OFT rotations",
    r"dora_scale|lora_magnitude_vector": "DoRA magnitudes",
    r"\.diff(_b)?$": "full weight differences",
    r"query_norm\.scale|norm\.(query|key)_norm": "a control LoRA of Black Forest Labs",
    r"lora_B\.bias|lora_up\.bias": "LoRA biases",
    r"^(text_encoder|text_encoder_2|lora_te\d?)[._]": "LoRA layers of text encoders",
    r"^lora_unet_(input|middle|output|down|mid|up)_|^unet\.": "layers of a Stable Diffusion UNet",
}
"""What some files hold that has no place in an adapter, by the names of their weights."""
LAYOUTS = {
    r"^lora_unet_|^lora_transformer_": "kohya keys",
    r"^diffusion_model\.|^(double|single)_blocks\.": "keys of Black Forest Labs' code",
    r"^(transformer\.)?(single_)?transformer_blocks\.": "diffusers keys",
}


def plain_lora(stored: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights of a LoRA file by diffusers' names without prefix, in float32 where they were smaller, at scale 1.

    Raises:
        ValueError: the file holds something else; the message names what was seen.
    """
    named = {WRAPPERS.sub("", key): weight for key, weight in stored.items()}
    for pattern, what in UNSUPPORTED.items():
        if key := next((key for key in named if re.search(pattern, key)), None):
            raise ValueError(f"it holds {what} ({key}), which an adapter cannot take")
    named = {key: w.float() if w.element_size() < torch.float32.itemsize else w for key, w in named.items()}
    _check_shapes(named)
    if is_uno(named):
        return from_uno(named)
    weights, alphas = _converted(named)
    _check_names(weights, named)
    return {
        key: (weight * _scale(key, weights, alphas, metadata)).contiguous()
        if ".lora_B." in key
        else weight.contiguous()
        for key, weight in weights.items()
    }


def seen_layout(keys: Iterable[str]) -> str:
    """What the names of weights look like, for messages."""
    keys = sorted(keys)
    for pattern, layout in (UNSUPPORTED | LAYOUTS).items():
        if key := next((key for key in keys if re.search(pattern, WRAPPERS.sub("", key))), None):
            return f"{layout} ({key})"
    return f"unknown keys ({keys[0]})" if keys else "no weights"


def layout_of(file: Path) -> str:
    """What the names of weights in a file look like, for messages."""
    with safe_open(file, "pt") as content:
        return seen_layout(content.keys())


def _check_shapes(weights: Mapping[str, Tensor]) -> None:
    for key, weight in weights.items():
        wanted = 0 if key.endswith("alpha") else 2
        if weight.ndim != wanted and not (wanted == 0 and weight.numel() == 1):
            raise ValueError(f"{key} should have {wanted} dimensions, found {weight.ndim}")


def _converted(named: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Weights and alphas by diffusers' names without prefix."""
    if any(re.match(r"lora_unet_|lora_transformer_|diffusion_model\.|(double|single)_blocks\.", key) for key in named):
        try:
            given, alphas, _ = FluxPipeline.lora_state_dict(dict(named), return_alphas=True, return_lora_metadata=True)
        except (ValueError, KeyError, IndexError, RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{seen_layout(named)} that diffusers does not convert: {reason}") from error
        given = given | dict(alphas or {})
    else:
        given = dict(named)
    weights, scales = {}, {}
    for key, weight in given.items():
        name = key.removeprefix(PREFIX)
        if name.endswith(".alpha"):
            scales[name.removesuffix(".alpha")] = float(weight)
            continue
        name = re.sub(r"\.lora[._]down\.", ".lora_A.", re.sub(r"\.lora[._]up\.", ".lora_B.", name))
        weights[name] = weight
    return weights, scales


def _check_names(weights: Mapping[str, Tensor], named: Mapping[str, Tensor]) -> None:
    for key in weights:
        if not re.fullmatch(r".+\.lora_[AB]\.weight", key):
            raise ValueError(f"{seen_layout(named)}: {key} is no LoRA matrix")
        other = key.replace(".lora_A.", ".lora_B.") if ".lora_A." in key else key.replace(".lora_B.", ".lora_A.")
        if other not in weights:
            raise ValueError(f"{key!r} lacks its other half, {other!r}")


def _scale(key: str, weights: Mapping[str, Tensor], alphas: Mapping[str, float], metadata: Mapping[str, str]) -> float:
    """Factor of a layer: alpha / rank, or alpha / sqrt(rank) for rsLoRA (peft); 1 where the file names no alpha."""
    layer = key.rsplit(".lora_B.", 1)[0]
    rank = weights[f"{layer}.lora_A.weight"].shape[0]
    if layer in alphas:
        return alphas[layer] / rank
    config = _config(metadata)
    if not config:
        return 1.0
    alpha = _by_pattern(layer, config.get("alpha_pattern"), config.get("lora_alpha", rank))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(layer: str, pattern: object, default: float) -> float:
    """The value of the first pattern that a layer's name ends with, as peft reads it."""
    for name, value in (pattern or {}).items() if isinstance(pattern, dict) else ():
        if re.fullmatch(rf"(.*\.)?({name})", layer):
            return float(value)
    return float(default)


def _config(metadata: Mapping[str, str]) -> dict[str, object]:
    """The transformer's part of peft's configuration in a file's header; empty if there is none.

    Raises:
        ValueError: it is damaged, or asks for DoRA.
    """
    if METADATA not in metadata:
        return {}
    try:
        content = json.loads(metadata[METADATA])
        config = {key.removeprefix(PREFIX): value for key, value in content.items() if key.startswith(PREFIX)}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{METADATA} in its header is damaged: {error}") from error
    if config.get("use_dora"):
        raise ValueError("it is a DoRA, whose magnitudes an adapter cannot take")
    return config
