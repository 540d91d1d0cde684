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
from mcpipe.flux.low_memory import Memory, largest_layer, num_rounded
from mcpipe.flux.moe_lora import expert_layers

GB = 1e9
"""Bytes of a GB, the unit in which GPUs are sold."""
FLUX_DEV: dict[str, JSON] = {"guidance_embeds": True}
"""FLUX.1-dev's configuration; all other values are diffusers' defaults."""
FLUX_DEV_OTHERS: dict[str, int] = {"text_encoder": 123_060_480, "text_encoder_2": 4_762_310_656, "vae": 83_819_683}
"""Weights of CLIP-L, T5-XXL (encoder) and the VAE; 0.25, 9.5 and 0.34 GB as they are loaded."""

Sharding = Literal["none", "adapter", "all"]
"""Parts sharded over the GPUs: none; the adapter, its gradients and optimiser state; or also the frozen base."""

MASTER, GRADIENT, ADAM = 4, 4, 8
"""Bytes per trained weight: float32 weight, float32 gradient, two float32 moments."""
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
    rounded: int = 0
    """Frozen weights that generation with medium memory stores in 8 bits (see `mcpipe.flux.low_memory`)."""
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
        rounded=num_rounded(transformer),
        largest=largest_layer(transformer),
    )


def plan(counted: Sizes, layout: MemoryLayout) -> MemoryPlan:
    """Memory of each GPU in stage 2."""
    of_base = layout.gpus if layout.sharding == "all" else 1
    of_adapter = layout.gpus if layout.sharding != "none" else 1
    others = {name: (4 if name == "vae" else layout.weight_bytes) for name in counted.others}
    optimiser = ADAM + (MASTER if layout.averaged else 0)
    gathered = 0.0
    if layout.gpus > 1 and layout.sharding != "none":  # the current block and the next one
        sharded = counted.trained + (counted.base if layout.sharding == "all" else 0)
        gathered = 2 * sharded / counted.blocks * layout.weight_bytes
    block = counted.tokens * counted.width * layout.weight_bytes
    kept = counted.blocks + BLOCK_WIDTHS if layout.checkpointing else counted.blocks * BLOCK_WIDTHS
    return MemoryPlan(
        {
            "frozen transformer": counted.base * layout.weight_bytes / of_base,
            ENCODERS: float(sum(counted.others[name] * size for name, size in others.items())),
            "adapter (float32)": counted.trained * MASTER / of_adapter,
            "gradients (float32)": counted.trained * GRADIENT / of_adapter,
            "optimiser (float32)": counted.trained * optimiser / of_adapter,
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


def inference_plans(counted: Sizes) -> dict[Memory, MemoryPlan]:
    """Memory of a GPU that draws one image, by mode of `mcpipe.flux.low_memory`: the fullest phase of each."""
    encoders = {name: 2.0 * num for name, num in counted.others.items() if name != "vae"}
    block = float(BLOCK_WIDTHS * counted.tokens * counted.width * ON_GPU)
    parts = ("frozen transformer", "adapter", "text encoders", "VAE (float32)", ACTIVATIONS)
    vae = 4.0 * counted.others.get("vae", 0)
    base = counted.rounded + 2.0 * (counted.base - counted.rounded)
    drawing = (base, 2.0 * counted.trained, 0.0, vae, block)
    reading = (0.0, 0.0, max(encoders.values(), default=0.0), vae, 0.0)
    rows: dict[Memory, tuple[float, ...]] = {
        "low": (2.0 * counted.largest, 0.0, 0.0, 0.0, block),
        "medium": max(drawing, reading, key=sum),
        "high": (2.0 * counted.base, float(MASTER * counted.trained), sum(encoders.values()), vae, block),
    }
    return {mode: MemoryPlan(dict(zip(parts, row, strict=True))) for mode, row in rows.items()}


def disk(counted: Sizes) -> MemoryPlan:
    """Bytes that the trainings write, in float32: their adapters, and the checkpoint of a running one."""
    return MemoryPlan(
        {
            "adapters of three stages": 4.0 * (3 * counted.plain + 2 * counted.experts),
            "progress of a training": float((MASTER + ADAM) * counted.trained),
        }
    )
