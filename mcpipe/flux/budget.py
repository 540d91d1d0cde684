"""Memory and disk space of a training, counted on the real network without its weights.

The network is built on torch's meta device, where tensors have shapes and no memory. Weights, gradients and optimiser
state are counted exactly; the activations of a forward pass are estimated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import torch

from mcpipe.core.records import JSON
from mcpipe.flux.adapters import AdapterSpec, add_adapter, trainable
from mcpipe.flux.backbone import FluxTransformer2DModel
from mcpipe.flux.low_memory import MODES, QUANTIZED, Memory, largest_layer
from mcpipe.flux.moe_lora import expert_layers
from mcpipe.flux.quantization import BYTES, QUANTIZATIONS, Quantization, num_quantized

GB = 1e9
"""Bytes of a GB, the unit in which GPUs are sold."""
FLUX_DEV: dict[str, JSON] = {"guidance_embeds": True}
"""FLUX.1-dev's configuration; all other values are diffusers' defaults."""
FLUX_DEV_OTHERS: dict[str, int] = {"text_encoder": 123_060_480, "text_encoder_2": 4_762_310_656, "vae": 83_819_683}
"""Weights of CLIP-L, T5-XXL (encoder) and the VAE; 0.25, 9.5 and 0.34 GB as they are loaded."""
FLUX_DEV_T5_EMBEDDING = 32_128 * 4_096
"""Those of T5-XXL's embedding of tokens, which are never rounded."""

Sharding = Literal["none", "adapter", "all"]
"""Parts sharded over the GPUs: none; the adapter, its gradients and optimiser state; or also the frozen base."""

Optimizer = Literal["adamw", "adamw8bit", "paged_adamw8bit"]
"""AdamW of torch, or of bitsandbytes with moments of 8 bits, which may be paged."""

MASTER, GRADIENT, ADAM = 4, 4, 8
"""Bytes per trained weight: float32 weight, float32 gradient, two float32 moments."""
ADAM_BYTES: dict[Optimizer, float] = {"adamw": ADAM, "adamw8bit": 2 + 2 * 4 / 256, "paged_adamw8bit": 0}
"""Bytes of the moments on the GPU: of 8 bits with a float32 scale per 256; paged ones can be in main memory."""
ON_GPU = 2
"""Bytes of a frozen weight on a GPU, in bfloat16."""
GATHERED, ENCODERS, ACTIVATIONS = "blocks gathered", "text encoders and VAE", "activations (estimate)"
BLOCK_WIDTHS = 20
"""Activations that a block keeps per token, in widths of the token (estimate; 0.3 GB per 2,336 tokens)."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of weights and tokens that determine the memory of a training."""

    base: int
    """Frozen weights of the transformer."""
    plain: int
    """Weights of plain LoRA."""
    experts: int
    """Weights of experts and their routers."""
    others: Mapping[str, int]
    """Weights of the text encoders and the VAE, which are loaded beside the transformer."""
    blocks: int
    width: int
    tokens: int
    """Tokens of one sample: text, image and references."""
    rounded: Mapping[Quantization, int] = field(default_factory=dict)
    """Frozen weights of the transformer that are stored in fewer bits (see `mcpipe.flux.quantization`), by form."""
    t5_kept: int = 0
    """Weights of T5 that are never rounded."""
    largest: int = 0
    """Weights of the largest layer, experts included."""

    @property
    def trained(self) -> int:
        """Number of trained weights."""
        return self.plain + self.experts


@dataclass(frozen=True)
class MemoryLayout:
    """Distribution of a training over GPUs."""

    gpus: int
    sharding: Sharding
    samples: int
    """Samples of one GPU in one pass."""
    checkpointing: bool
    """Whether blocks keep their input only and are recomputed in the backward pass."""
    averaged: bool
    """Whether a moving average of the adapter is kept."""
    weight_bytes: int = 2
    """Bytes of a frozen weight: 2 in bfloat16 on a GPU, 4 in float32 on a CPU."""
    quantization: Quantization = "none"
    """Form of the frozen weights of transformer and T5."""
    optimizer: Optimizer = "adamw"


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by purpose, on one GPU or one disk."""

    parts: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return sum(self.parts.values())


def network_on_meta(config: Mapping[str, JSON], spec: AdapterSpec) -> FluxTransformer2DModel:
    """The transformer of a configuration with a fresh adapter, without memory for a single weight.

    Raises:
        ValueError: the configuration is not FLUX's.
    """
    try:
        with torch.device("meta"):
            transformer = cast(FluxTransformer2DModel, FluxTransformer2DModel.from_config(dict(config)))
            transformer.requires_grad_(False)
            add_adapter(transformer, spec, seed=0)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"the generator's transformer cannot be built: {' '.join(str(error).split())}") from error
    return transformer


def sizes(
    config: Mapping[str, JSON],
    spec: AdapterSpec,
    *,
    references: int,
    text_tokens: int,
    token_px: int,
    others: Mapping[str, int],
    t5_kept: int = FLUX_DEV_T5_EMBEDDING,
) -> Sizes:
    """Count a network; ``token_px`` is the side of the square that one token covers, in pixels."""
    transformer = network_on_meta(config, spec)
    trained = trainable(transformer)
    layers = tuple(f"{name}." for name, _ in expert_layers(transformer))
    experts = sum(weight.numel() for name, weight in trained.items() if layers and name.startswith(layers))
    adapter = sum(weight.numel() for weight in trained.values())
    image, reference = (side // token_px for side in (spec.image_size, spec.reference_size))
    return Sizes(
        base=sum(weight.numel() for weight in transformer.parameters()) - adapter,
        plain=adapter - experts,
        experts=experts,
        others=others,
        blocks=len(transformer.transformer_blocks) + len(transformer.single_transformer_blocks),
        width=transformer.inner_dim,
        tokens=text_tokens + image**2 + references * reference**2,
        rounded={form: num_quantized(transformer, form) for form in QUANTIZATIONS},
        t5_kept=t5_kept,
        largest=largest_layer(transformer),
    )


def plan(counted: Sizes, layout: MemoryLayout) -> MemoryPlan:
    """Memory of each GPU in stage 2."""
    of_base = layout.gpus if layout.sharding == "all" else 1
    of_adapter = layout.gpus if layout.sharding != "none" else 1
    form, size = layout.quantization, layout.weight_bytes
    optimiser = ADAM_BYTES[layout.optimizer] + (MASTER if layout.averaged else 0)
    gathered = 0.0
    if layout.gpus > 1 and layout.sharding != "none":  # the current block and the next one
        sharded = counted.trained + (counted.base if layout.sharding == "all" else 0)
        gathered = 2 * sharded / counted.blocks * layout.weight_bytes
    block = counted.tokens * counted.width * layout.weight_bytes
    kept = counted.blocks + BLOCK_WIDTHS if layout.checkpointing else counted.blocks * BLOCK_WIDTHS
    return MemoryPlan(
        {
            "frozen transformer": base_bytes(counted, form, size) / of_base,
            ENCODERS: sum(other_bytes(counted, name, form, size) for name in counted.others),
            "adapter (float32)": counted.trained * MASTER / of_adapter,
            "gradients (float32)": counted.trained * GRADIENT / of_adapter,
            "optimiser": counted.trained * optimiser / of_adapter,
            GATHERED: gathered,
            ACTIVATIONS: float(layout.samples * kept * block),
        }
    )


@dataclass(frozen=True)
class ReinforcementLayout:
    """Distribution of stage 3 over GPUs."""

    memory: MemoryLayout
    """As in stage 2, except for its samples."""
    states: int
    """States with a graph at the same time."""
    scorers: float
    """Bytes of the reward models on each GPU."""
    graphs_wait: bool
    """Whether graphs of a rollout are kept while its images are scored."""
    scorers_rest: bool
    """Whether reward models are in main memory while they score nothing."""


def reinforcement_plan(counted: Sizes, layout: ReinforcementLayout) -> MemoryPlan:
    """Memory of each GPU in stage 3.

    There is one gradient, as in stage 2: every pass adds its own to ``.grad``. The reference policy is kept in main
    memory and takes the place of the weights when it runs; on a GPU the text encoders rest there, too, once all prompts
    are encoded. Reward models that rest take the room of the activations, if there are none while images are scored.
    """
    parts = dict(plan(counted, replace(layout.memory, samples=layout.states)).parts)
    if layout.memory.weight_bytes == ON_GPU:
        parts.pop(ENCODERS)
        parts["VAE (float32)"] = 4.0 * counted.others.get("vae", 0)
    spared = parts[ACTIVATIONS] if layout.scorers_rest and not layout.graphs_wait else 0.0
    return MemoryPlan(parts | {"reward models": max(layout.scorers - spared, 0.0)})


def base_bytes(counted: Sizes, form: Quantization, weight_bytes: int = ON_GPU) -> float:
    """Memory of the frozen transformer, ``weight_bytes`` for every weight that is not rounded."""
    rounded = counted.rounded.get(form, 0) if form != "none" else 0
    return rounded * BYTES[form] + float(weight_bytes) * (counted.base - rounded)


def other_bytes(counted: Sizes, name: str, form: Quantization, weight_bytes: int = ON_GPU) -> float:
    """Memory of a text encoder or the VAE (float32), by name; T5 is rounded but for its embedding."""
    if name == "vae":
        return 4.0 * counted.others[name]
    rounded = counted.others[name] - counted.t5_kept if name == "text_encoder_2" and form != "none" else 0
    return rounded * BYTES[form] + float(weight_bytes) * (counted.others[name] - rounded)


def inference_plans(counted: Sizes) -> dict[str, MemoryPlan]:
    """Memory of a GPU that draws one image, by mode of `mcpipe.flux.low_memory` and form of the frozen weights.

    The fullest phase of each; the modes' own forms are named by the mode alone.
    """
    plans = {}
    for mode in MODES:
        for form in QUANTIZATIONS if mode != "low" else QUANTIZATIONS[:1]:
            plans[mode if form == QUANTIZED[mode] else f"{mode} {form}"] = inference_plan(counted, mode, form)
    return plans


def inference_plan(counted: Sizes, mode: Memory, form: Quantization) -> MemoryPlan:
    """Memory of a GPU that draws one image, in its fullest phase."""
    encoders = {name: other_bytes(counted, name, form) for name in counted.others if name != "vae"}
    block = float(BLOCK_WIDTHS * counted.tokens * counted.width * ON_GPU)
    parts = ("frozen transformer", "adapter", "text encoders", "VAE (float32)", ACTIVATIONS)
    vae, base = 4.0 * counted.others.get("vae", 0), base_bytes(counted, form)
    drawing = (base, 2.0 * counted.trained, 0.0, vae, block)
    reading = (0.0, 0.0, max(encoders.values(), default=0.0), vae, 0.0)
    adapter = float(counted.trained * (MASTER if form == "none" else ON_GPU))
    rows: dict[Memory, tuple[float, ...]] = {
        "low": (2.0 * counted.largest, 0.0, 0.0, 0.0, block),
        "medium": max(drawing, reading, key=sum),
        "high": (base, adapter, sum(encoders.values()), vae, block),
    }
    return MemoryPlan(dict(zip(parts, rows[mode], strict=True)))


def disk(counted: Sizes) -> MemoryPlan:
    """Bytes that the trainings write, in float32: their adapters, and the checkpoint of a running one."""
    return MemoryPlan(
        {
            "adapters of three stages": 4.0 * (3 * counted.plain + 2 * counted.experts),
            "progress of a training": float((MASTER + ADAM) * counted.trained),
        }
    )
