"""Reasons why stage 2 does not fit into a GPU's memory, and the changes that make it fit."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from mcpipe.flux.budget import GB, MemoryLayout, MemoryPlan, Sharding, Sizes, plan
from mcpipe.train.loop.runtime import runtime_from


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
                if plan(counted, other).total <= room:
                    return f"{reason}; it fits with {advice(layout, other)}"
    return f"{reason}; use more GPUs with MCPIPE_SHARDING=all, larger ones, a lower train_single.rank, or fewer experts"


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
    words += [f"MCPIPE_ACCUMULATION_STEPS={steps}"] if steps > 1 else []
    return " ".join(words) or "MCPIPE_SHARDING=none"
