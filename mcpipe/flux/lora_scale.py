"""The scale of every layer of a LoRA file, as peft reads it: alpha / rank, or alpha / sqrt(rank) for rsLoRA.

Three places may hold alpha: a weight ``LAYER.alpha`` (kohya), the entry ``lora_adapter_metadata`` of a file's header
(diffusers), and ``adapter_config.json`` beside the file (peft). Where none does, the scale is 1.
"""

import json
import logging
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

METADATA = "lora_adapter_metadata"
"""Entry of a file's header in which diffusers keeps peft's configuration."""
PREFIX = "transformer."
"""What stands before the settings of the transformer there, since a file may hold several models."""
PEFT_FILE = "adapter_config.json"
PEFT_KEYS = "base_model.model."
"""Beginning of every name in a file that peft wrote."""
UNSUPPORTED = {
    "use_dora": "DoRA",
    "lora_bias": "LoRA biases",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "block-diagonal LoRA",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "replicated layers",
    "modules_to_save": "layers trained as a whole",
    "target_parameters": "adapted parameters of other layers than linear ones",
}
"""Settings of peft that an adapter has no place for."""
CHANGING_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Beginnings of ``init_lora_weights`` with which training changes the layer itself, too."""

PeftConfig = Mapping[str, object]
"""Peft's settings of a LoRA, by name; empty where a file has none."""


def peft_config(file: Path, keys: Iterable[str], metadata: Mapping[str, str]) -> PeftConfig:
    """The configuration of a LoRA file with ``keys`` and ``metadata``.

    Raises:
        ValueError: it is damaged, or asks for what an adapter cannot take.
    """
    config: PeftConfig = {}
    beside = file.with_name(PEFT_FILE)
    if METADATA in metadata:
        content = _mapping(metadata[METADATA], f"{METADATA} in its header")
        config = {key.removeprefix(PREFIX): value for key, value in content.items() if key.startswith(PREFIX)}
    elif any(key.startswith(PEFT_KEYS) for key in keys):
        if beside.is_file():
            config = _mapping(beside.read_text(encoding="utf-8"), PEFT_FILE)
        else:
            logger.warning("%s lies not beside %s; its scale is taken for 1 where it names no alpha", PEFT_FILE, file)
    _check(config)
    return config


def scale(layer: str, rank: int, alphas: Mapping[str, float], config: PeftConfig) -> float:
    """Factor of the output of a layer's matrices.

    Raises:
        ValueError: the configuration names another rank than the weights have, or is damaged.
    """
    if layer in alphas:
        return alphas[layer] / rank
    if not config:
        return 1.0
    layer_rank = _by_pattern(layer, "rank_pattern", config, _number(config, "r", rank))
    if layer_rank != rank:
        raise ValueError(f"its configuration says rank {layer_rank:g} at {layer}, but its weights have rank {rank}")
    alpha = _by_pattern(layer, "alpha_pattern", config, _number(config, "lora_alpha", rank))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(layer: str, name: str, config: PeftConfig, default: float) -> float:
    """The value of the first pattern that matches a layer's name, or its end after a dot, as peft reads it."""
    patterns = config.get(name) or {}
    if not isinstance(patterns, dict):
        raise ValueError(f"its configuration is damaged: {name} is no mapping")  # noqa: TRY004  not a type
    try:
        matching = (key for key in patterns if re.match(rf"(.*\.)?({key})$", layer))
        key = next(matching, None)
    except re.error as error:
        raise ValueError(f"its configuration is damaged: {name} holds no pattern: {error}") from error
    return default if key is None else _number(patterns, key, default)


def _number(content: Mapping[str, object], key: str, default: float) -> float:
    value = content.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"its configuration is damaged: {key} should be a number, found {value!r}")
    return float(value)


def _mapping(text: str, where: str) -> dict[str, object]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where} is damaged: it is no mapping")  # noqa: TRY004  not a type
    return content


def _check(config: PeftConfig) -> None:
    """Check that an adapter can represent a configuration."""
    for name, what in UNSUPPORTED.items():
        if config.get(name):
            raise ValueError(f"its configuration asks for {what} ({name}), which an adapter cannot take")
    kind, start = str(config.get("peft_type", "LORA")), str(config.get("init_lora_weights", ""))
    if kind.rsplit(".", 1)[-1].upper() != "LORA":
        raise ValueError(f"its configuration is of {kind}, not of LoRA")
    if start.lower().startswith(CHANGING_STARTS):
        raise ValueError(
            f"it was trained with init_lora_weights {start!r}, which changes the layers that it adapts; "
            "convert it with peft (path_initial_model_for_weight_conversion)"
        )
