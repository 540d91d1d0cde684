"""Memory that stage 3 needs on each GPU, its reward models included, and the changes that make it fit."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mcpipe.cli.doctor.checkpoints import num_weights
from mcpipe.cli.doctor.fits import halved
from mcpipe.flux.budget import GB, MemoryLayout, MemoryPlan, ReinforcementLayout, Sharding, Sizes, reinforcement_plan
from mcpipe.train.rl.params import TrainRLParams

PUBLISHED = {
    "reward_clip": 427_616_513 * 4.0, "reward_hps": 986_109_441 * 4.0, "faces": 0.33 * GB, "faces_heldout": 0.41 * GB,
}  # fmt: skip
"""Bytes of the paper configuration's reward models in float32, where their files are not there."""
PSR_PUBLISHED = {
    "rl_psr.grounder": 0.69 * GB, "rl_psr.encoder": 0.35 * GB,
    "rl_psr.judge": 16.6 * GB, "rl_psr.preference": 16.6 * GB,
}  # fmt: skip
"""The same for the models of `PsrParams`, as far as they are set; Qwen's in bfloat16, as they are loaded on a GPU."""
FILES = {"reward_hps": "*.pt", "faces": "*.onnx", "faces_heldout": "*.onnx"}
"""Files that hold a reward model as it is loaded."""


@dataclass(frozen=True)
class Reinforcement:
    """A stage 3 on some hardware."""

    counted: Sizes
    params: TrainRLParams
    layout: MemoryLayout
    """That of stage 2."""
    scorers: float
    """Bytes of the reward models."""
    scorers_rest: bool
    """Whether they are in main memory while they score nothing."""

    @property
    def states(self) -> int:
        """States with a graph at the same time."""
        sampling, kept = self.params.sampling, len(self.params.parts()[0])
        return 1 + (sampling.window_size - 1) * kept if self._joint else sampling.samples_per_pass

    @property
    def title(self) -> str:
        """What is kept of how many states, in words."""
        kept = "inputs of blocks kept" if self.layout.checkpointing else "everything kept"
        return f"{self.states} states with a graph ({self.params.update.gradient}), {kept}"

    @property
    def _joint(self) -> bool:
        return self.params.update.gradient == "joint"

    def plan(self, sharding: Sharding) -> MemoryPlan:
        """Memory of each GPU."""
        memory = replace(self.layout, sharding=sharding, averaged=self.params.update.ema_decay > 0)
        layout = ReinforcementLayout(memory, self.states, self.scorers, self._joint, self.scorers_rest)
        return reinforcement_plan(self.counted, layout)

    def plans(self, kinds: Iterable[Sharding]) -> dict[Sharding, MemoryPlan]:
        """Memory of each GPU, for every sharding."""
        return {kind: self.plan(kind) for kind in kinds}

    def variants(self) -> Iterator["Reinforcement"]:
        """The same with more and more memory exchanged for time, results equal up to rounding."""
        for checkpointed in sorted({self.layout.checkpointing, True}):
            yield replace(self, layout=replace(self.layout, checkpointing=checkpointed))
        layout = replace(self.layout, checkpointing=True)
        update = self.params.update.model_copy(update={"gradient": "two_pass"})
        for samples in halved(self.params.sampling.samples_per_pass):
            if len(self.params.parts()[0]) % samples == 0:
                sampling = self.params.sampling.model_copy(update={"samples_per_pass": samples})
                params = self.params.model_copy(update={"sampling": sampling, "update": update})
                yield replace(self, layout=layout, params=params)
                yield replace(self, layout=layout, params=params, scorers_rest=True)


def refused_reinforcement(
    setup: Reinforcement, kinds: Iterable[Sharding], chosen: Sharding, room: float, device: str
) -> list[str]:
    """Reason why stage 3 does not fit into ``room`` bytes, and the first change that makes it fit; empty if it fits."""
    needed = setup.plan(chosen)
    if needed.total <= room:
        return []
    largest = max(needed.parts, key=lambda name: needed.parts[name])
    reason = (
        f"train_rl needs {needed.total / GB:.1f} GB, of which {needed.parts[largest] / GB:.1f} GB for {largest}, but "
        f"{device} has room for {room / GB:.1f} GB"
    )
    kinds = list(kinds)
    for variant in setup.variants():
        for kind in kinds:
            if variant.plan(kind).total <= room:
                return [f"{reason}; it fits with {advice(setup, variant, kind)}"]
    return [
        f"{reason}; use more GPUs with MCPIPE_SHARDING=all, larger ones, a lower train_single.rank, or fewer experts "
        "(train_multi.experts)"
    ]


def advice(before: Reinforcement, after: Reinforcement, sharding: Sharding) -> str:
    """Environment variables and settings that turn one stage 3 into another."""
    words = [f"MCPIPE_SHARDING={sharding}"] if sharding != "none" else []
    words += ["MCPIPE_GRADIENT_CHECKPOINTING=1"] if after.layout.checkpointing else []
    words += ["MCPIPE_OFFLOAD_SCORERS=1"] if after.scorers_rest else []
    if after.params.update.gradient != before.params.update.gradient:
        words.append("rl_update.gradient=two_pass")
    if after.params.sampling.samples_per_pass != before.params.sampling.samples_per_pass:
        words.append(f"rl_sampling.samples_per_pass={after.params.sampling.samples_per_pass}")
    return " ".join(words) or "MCPIPE_SHARDING=none"


def scorer_bytes(models: Mapping[str, Path]) -> float:
    """Bytes of the reward models in float32, by their files; of those that are not there, as published."""
    total = 0.0
    for name, published in PUBLISHED.items():
        folder = models.get(name)
        if name == "reward_hps" and "rl_psr.preference" in models:
            continue
        if folder is None or not folder.is_dir():
            total += published
        elif name in FILES:
            total += sum(file.stat().st_size for file in folder.glob(FILES[name]))
        else:
            total += 4.0 * num_weights(folder)
    for name, published in PSR_PUBLISHED.items():
        if folder := models.get(name):
            width = 2.0 if name in {"rl_psr.judge", "rl_psr.preference"} else 4.0
            total += width * num_weights(folder) if folder.is_dir() else published
    return total
