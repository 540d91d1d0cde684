"""Reasons why stage 2 does not fit into a GPU's memory, and the changes that make it fit."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from mcpipe.flux.budget import GB, MemoryLayout, MemoryPlan, Optimizer, Sharding, Sizes, plan
from mcpipe.flux.quantization import Quantization
from mcpipe.train.loop.runtime import runtime_from

FEWER_BITS: tuple[tuple[Quantization, Optimizer], ...] = (
    ("nf4", "adamw"), ("nf4", "adamw8bit"), ("nf4", "paged_adamw8bit"),
)  # fmt: skip
"""Forms of frozen weights and moments that change results by more than the order of sums, from most memory to least."""


def fewer_bits(counted: Sizes, layout: MemoryLayout) -> dict[str, MemoryPlan]:
    """Memory of each GPU in stage 2 with a whole network on each, for forms of frozen weights and moments."""
    whole = replace(layout, sharding="none", checkpointing=True)
    forms = (("none", "adamw"), *FEWER_BITS)
    return {
        f"{base}, {optimizer}": plan(counted, replace(whole, quantization=base, optimizer=optimizer))
        for base, optimizer in forms
    }


def refusal(
    counted: Sizes,
    layout: MemoryLayout,
    plans: Mapping[Sharding, MemoryPlan],
    chosen: Sharding,
    room: float,
    device: str,
) -> str:
    """Reason why a plan of stage 2 does not fit into ``room`` bytes, and the first change that makes it fit."""
    parts = plans[chosen].parts
    largest = max(parts, key=lambda name: parts[name])
    reason = (
        f"train_multi needs {plans[chosen].total / GB:.1f} GB, of which {parts[largest] / GB:.1f} GB for {largest}, "
        f"but {device} has room for {room / GB:.1f} GB"
    )
    for samples in halved(layout.samples):
        for checkpointing in sorted({layout.checkpointing, True}):
            for kind in plans:
                other = replace(layout, sharding=kind, samples=samples, checkpointing=checkpointing)
                if combines(other) and plan(counted, other).total <= room:
                    return f"{reason}; it fits with {advice(layout, other)}"
    for base, optimizer in FEWER_BITS:
        for samples in halved(layout.samples):
            other = replace(
                layout, sharding="none", samples=samples, checkpointing=True, quantization=base, optimizer=optimizer
            )
            if plan(counted, other).total <= room:
                return f"{reason}; rounded, it fits with {advice(layout, other)}"
    return f"{reason}; use more GPUs with MCPIPE_SHARDING=all, larger ones, a lower train_single.rank, or fewer experts"


def combines(layout: MemoryLayout) -> bool:
    """Whether weights and moments of bitsandbytes go with the sharding, as `mcpipe.train.loop.runtime` checks."""
    whole = layout.sharding == "none" or layout.optimizer == "adamw"
    return whole and (layout.sharding != "all" or layout.quantization == "none")


def halved(samples: int) -> Iterator[int]:
    """Numbers of samples from ``samples`` down to 1, each half of the one before, rounded up."""
    while samples > 1:
        yield samples
        samples = -(-samples // 2)
    yield 1


def advice(layout: MemoryLayout, other: MemoryLayout) -> str:
    """Environment variables that turn one layout into another."""
    steps = runtime_from().accumulation_steps * -(-layout.samples // other.samples)
    words = [f"MCPIPE_SHARDING={other.sharding}"] if other.sharding != "none" else []
    words += ["MCPIPE_GRADIENT_CHECKPOINTING=1"] if other.checkpointing else []
    words += [f"MCPIPE_QUANTIZE={other.quantization}"] if other.quantization != "none" else []
    words += [f"MCPIPE_OPTIMIZER={other.optimizer}"] if other.optimizer != "adamw" else []
    words += [f"MCPIPE_ACCUMULATION_STEPS={steps}"] if steps > 1 else []
    return " ".join(words) or "MCPIPE_SHARDING=none"
