"""LoRA files of any common layout, brought to one: diffusers' names, matrices ``lora_A`` and ``lora_B``, scale 1.

Layouts are converted by diffusers' own converters; what decides the scale (alpha, rank, patterns, rsLoRA) is multiplied
into ``lora_B``, so that the stored weights compute what stock diffusers computes with the file.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.lora_scale import PeftConfig, scale
from mcpipe.flux.uno import from_uno, is_uno

WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What compilation, sharding and checkpointing put anywhere into a name."""
PREFIXES = re.compile(r"^(?:(?:base_model\.model|module|model|diffusion_model|transformer)\.)+")
"""What peft, distributed training, ComfyUI and diffusers put before every name."""
ADAPTER_NAME = re.compile(r"\.lora_([AB])\.(?!weight$|bias$)[^.]+\.(weight|bias)$")
"""A matrix as peft calls it in memory, with the name of its adapter."""
UNSUPPORTED = {
    r"lokr_": "LoKr factors",
    r"hada_": "LoHa factors",
    r"oft_": "OFT rotations",
    r"vera_lambda": "VeRA vectors",
    r"ia3_l": "(IA)^3 vectors",
    r"\.lora_E$|\.lora_E\.": "AdaLoRA factors",
    r"\.[ab][12]\.weight$": "GLoRA factors",
    r"\.lora_mid\.": "Tucker factors of LoCon",
    r"\.lora_embedding_": "LoRA of an embedding",
    r"dora_scale|lora_magnitude_vector": "DoRA magnitudes",
    r"\.diff(_b)?$": "full weight differences",
    r"query_norm\.scale|norm\.(query|key)_norm": "a control LoRA of Black Forest Labs",
    r"\.(lora_B|lora_up|lora\.up)\.bias$": "LoRA biases",
    r"^(ip_adapter|image_proj)\.": "an IP adapter",
    r"^lora_unet_(input|middle|output)_block|^lora_te2_": "SDXL UNet keys",
    r"^lora_unet_(down|mid|up)_|^unet\.|^(down|mid|up)_blocks?\.": "Stable Diffusion UNet keys",
    r"^text_encoders?(_\d)?\.|^lora_te\d?_": "LoRA layers of text encoders",
    r"^(blocks|layers)\.\d+\.|^lora_unet_(blocks|layers)_": "keys of another transformer than FLUX",
}
"""What some files hold that has no place in an adapter, by the names of their weights."""
KOHYA, OURS = r"^lora_unet_|^lora_transformer_", r"^(single_)?transformer_blocks\."
BFL = r"^((double|single)_blocks|img_in|txt_in|time_in|vector_in|guidance_in|final_layer)\."
LAYOUTS = {KOHYA: "kohya keys", BFL: "keys of Black Forest Labs' code", OURS: "diffusers keys"}
PART = re.compile(r".+\.(?:lora_[AB]\.weight|lora_(?:down|up)\.weight|processor\.\w+\.(?:down|up)\.weight|alpha)")
"""The name of a matrix or of a layer's alpha."""


def plain_lora(stored: Mapping[str, Tensor], config: PeftConfig) -> dict[str, Tensor]:
    """Weights of a LoRA file by diffusers' names without prefix, in float32 where they were smaller, at scale 1.

    ``config`` is peft's configuration where the file has one (see `mcpipe.flux.lora_scale`), else empty.

    Raises:
        ValueError: the file holds something else; the message names its content.
    """
    named = _named(stored)
    _check_kind(named)
    floats = {key: _checked(key, weight) for key, weight in named.items()}
    if is_uno(floats):
        return from_uno(floats)
    weights, alphas = _converted(floats)
    _check_matrices(weights, floats)
    if alphas and config:
        raise ValueError(f"it gives its scale twice, in its configuration and in {min(alphas)}.alpha")
    folded = {}
    for key, weight in weights.items():
        layer, part, _ = key.rsplit(".", 2)
        factor = scale(layer, len(weights[f"{layer}.lora_A.weight"]), alphas, config) if part == "lora_B" else 1.0
        folded[key] = (weight * factor).contiguous()  # a new one: converters give several layers the same matrix
    return folded


def seen_layout(keys: Iterable[str]) -> str:
    """Layout of the names of weights, for messages."""
    names = sorted(map(_bare, keys))
    for pattern, layout in (UNSUPPORTED | LAYOUTS).items():
        if name := next((name for name in names if re.search(pattern, name)), None):
            return f"{layout} ({name})"
    return f"unknown keys ({names[0]})" if names else "no weights"


def layout_of(file: Path) -> str:
    """Layout of the names of weights in a file, for messages."""
    with safe_open(file, "pt") as content:
        return seen_layout(content.keys())


def _bare(key: str) -> str:
    """A name without what surrounds it, its matrices called as diffusers calls them today."""
    key = PREFIXES.sub("", WRAPPERS.sub("", key))
    key = re.sub(r"\.lora(?:_linear_layer)?\.down\.", ".lora_A.", key)
    return ADAPTER_NAME.sub(r".lora_\1.\2", re.sub(r"\.lora(?:_linear_layer)?\.up\.", ".lora_B.", key))


def _named(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    for key, weight in stored.items():
        if (name := _bare(key)) in named:
            raise ValueError(f"it holds {name} more than once, the second time as {key}; keep one adapter")
        named[name] = weight
    return named


def _check_kind(named: Mapping[str, Tensor]) -> None:
    """Make sure that every weight is a part of a LoRA that an adapter can take."""
    for pattern, what in UNSUPPORTED.items():
        if key := next((key for key in named if re.search(pattern, key)), None):
            raise ValueError(f"it holds {what} ({key}), which an adapter cannot take")
    if not named:
        raise ValueError("it holds no weights")
    if not any(PART.fullmatch(key) for key in named):
        raise ValueError(f"it holds no LoRA matrices but {seen_layout(named)}")
    if odd := next((key for key in sorted(named) if not PART.fullmatch(key)), None):
        raise ValueError(f"it has {seen_layout(named)}, and {odd} is no LoRA matrix")


def _checked(key: str, weight: Tensor) -> Tensor:
    """A matrix or an alpha, in float32 if it was smaller."""
    if key.endswith(".alpha"):
        if weight.numel() != 1:
            raise ValueError(f"{key} should be one number, found shape {tuple(weight.shape)}")
    elif weight.ndim != 2:  # noqa: PLR2004  rows and columns
        raise ValueError(f"{key} should have 2 dimensions, found {weight.ndim}")
    elif not weight.is_floating_point():
        raise ValueError(f"{key} should be of floating-point numbers, found {weight.dtype}")
    elif not weight.numel():
        raise ValueError(f"{key} is empty, of shape {tuple(weight.shape)}")
    number = weight.float() if weight.element_size() < torch.float32.itemsize or key.endswith(".alpha") else weight
    if not torch.isfinite(number).all():
        raise ValueError(f"{key} holds numbers that are not finite")
    return number


def _converted(named: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Weights and alphas by diffusers' names."""
    tensors = dict(named)
    if any(re.search(f"{KOHYA}|{BFL}", key) for key in named):
        try:
            tensors = FluxPipeline.lora_state_dict(_for_converter(named))
        except (ValueError, KeyError, IndexError, RuntimeError, AttributeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:200] or "a layer has another width than in FLUX.1"
            raise ValueError(f"it has {seen_layout(named)} that diffusers does not convert: {reason}") from error
        if key := next((key for key in tensors if re.search(r"blocks\.\d+\.lora_", key)), None):
            raise ValueError(
                f"it has {seen_layout(named)}, and diffusers does not know a layer of {key.split('.lora_')[0]}"
            )
    elif any(".lora_down." in key for key in named) and (key := next((k for k in named if k.endswith(".alpha")), None)):
        raise ValueError(f"it has lora_down and {key}, which stock diffusers leaves out; rename lora_down to lora_A")
    weights, alphas = {}, {}
    for key, weight in tensors.items():
        name = key.removeprefix("transformer.")
        if name.endswith(".alpha"):
            alphas[name.removesuffix(".alpha")] = float(weight)
        else:
            weights[name.replace(".lora_down.", ".lora_A.").replace(".lora_up.", ".lora_B.")] = weight
    return weights, alphas


def _for_converter(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under names that diffusers' converter of kohya's files knows."""
    converter_input: dict[str, Tensor] = {}
    for key, weight in named.items():
        name = key.replace(".lora_A.", ".lora_down.").replace(".lora_B.", ".lora_up.")
        converter_input[f"diffusion_model.{name}" if re.search(BFL, key) else name] = weight
        if name.startswith("lora_transformer_") and name.endswith(".lora_down.weight"):
            # The converter wants an alpha of every layer.
            converter_input.setdefault(name.replace(".lora_down.weight", ".alpha"), torch.tensor(float(len(weight))))
    return converter_input


def _check_matrices(weights: Mapping[str, Tensor], named: Mapping[str, Tensor]) -> None:
    """Check that matrices come in pairs of equal rank."""
    for key, weight in weights.items():
        if not re.fullmatch(r".+\.lora_[AB]\.weight", key):
            raise ValueError(f"it has {seen_layout(named)}, and {key} is no LoRA matrix")
        other = key.replace(".lora_A.", ".lora_B.") if ".lora_A." in key else key.replace(".lora_B.", ".lora_A.")
        if other not in weights:
            raise ValueError(f"{key!r} lacks its other half, {other!r}")
        if ".lora_A." in key and len(weight) != weights[other].shape[1]:
            raise ValueError(f"{key} has rank {len(weight)}, but {other} has rank {weights[other].shape[1]}")
