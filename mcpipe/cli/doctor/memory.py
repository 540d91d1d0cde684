"""Memory and disk that a configuration needs, beside what a machine has."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import cast

import torch
from rich.table import Table

from mcpipe.cli.doctor.checkpoints import num_weights
from mcpipe.cli.outputs import existing
from mcpipe.cli.settings import Content, section
from mcpipe.core.params import check_params, params_of
from mcpipe.core.records import JSON
from mcpipe.flux.adapters import AdapterSpec
from mcpipe.flux.budget import (
    FLUX_DEV,
    FLUX_DEV_OTHERS,
    GB,
    Layout,
    Plan,
    Sharding,
    Sizes,
    disk,
    plan,
    reinforcement_plan,
    sizes,
)
from mcpipe.train.loop.runtime import this_machine
from mcpipe.train.multi import TrainMultiParams
from mcpipe.train.rl.params import TrainRLParams
from mcpipe.train.single import TrainSingleParams

ROOM = 0.92
"""Part of the memory that a plan may fill; the rest is for the driver, workspaces and fragments (estimate)."""
OTHERS = ("text_encoder", "text_encoder_2", "vae")
SHARDINGS: tuple[Sharding, ...] = ("none", "adapter", "all")


@dataclass(frozen=True)
class Hardware:
    """What there is, or is wished for."""

    gpus: int
    gpu_gb: float | None
    """Memory of each GPU in GB; ``None`` takes this machine's."""
    data: Path
    """Where outputs go."""


@dataclass(frozen=True)
class Generator:
    """What decides how large a generator is."""

    config: dict[str, JSON] = field(default_factory=lambda: dict(FLUX_DEV))
    others: dict[str, int] = field(default_factory=lambda: dict(FLUX_DEV_OTHERS))
    text_tokens: int = 512
    token_px: int = 16
    """Side in pixels of the square that a token covers."""
    source: str = "FLUX.1-dev as published; the folder is not there"


@dataclass(frozen=True)
class Capacity:
    """What a configuration needs of a machine."""

    tables: list[Table]
    problems: list[str]
    """What does not fit, a line each."""


def capacity(content: Content, folder: Path, machine: Hardware) -> Capacity:
    """What the settings need with the generator of a folder.

    Raises:
        ValueError: the generator's transformer is not FLUX's, or the machine or the environment is described wrongly.
    """
    if machine.gpus < 1:
        raise ValueError(f"--gpus should be 1 or more, not {machine.gpus}")
    if machine.gpu_gb is not None and not 0 < machine.gpu_gb < inf:
        raise ValueError(f"--gpu-gb should be a positive number, not {machine.gpu_gb:g}")
    generator = read_generator(folder)
    multi = params_of(content, "train_multi", TrainMultiParams)
    spec = adapter_spec(content, multi)
    references = section(content, "subjects")["num_people"]
    assert isinstance(references, int), "checked with the settings"
    counted = sizes(
        generator.config, spec, references=references, text_tokens=generator.text_tokens,
        token_px=generator.token_px, others=generator.others,
    )  # fmt: skip
    here = this_machine()
    memory, weight_bytes, whose = available(machine)
    samples = -(-multi.batch_size // (machine.gpus * here.accumulation_steps))
    layout = Layout(machine.gpus, "none", samples, here.gradient_checkpointing, multi.ema_decay > 0, weight_bytes)
    kinds = SHARDINGS if machine.gpus > 1 else SHARDINGS[:1]
    plans: dict[Sharding, Plan] = {kind: plan(counted, replace(layout, sharding=kind)) for kind in kinds}
    problems = []
    chosen: Sharding = cast(Sharding, here.sharding) if here.sharding in kinds else "none"
    if plans[chosen].total > memory * ROOM:
        problems.append(refusal(counted, layout, plans, chosen, memory, whose))
    reinforced = reinforcement(counted, params_of(content, "train_rl", TrainRLParams), layout)
    if reinforced.total > memory * ROOM:
        problems.append(
            f"train_rl needs {reinforced.total / GB:.1f} GB on every GPU, since it spreads nothing, but {whose} has "
            f"room for {memory * ROOM / GB:.1f} GB; use larger ones, a lower train_single.rank, or fewer experts "
            "(train_multi.experts)"
        )
    written = disk(counted)
    free = shutil.disk_usage(existing(machine.data)).free
    if written.total > free:
        problems.append(f"trainings write {written.total / GB:.1f} GB, but {machine.data} has {free / GB:.1f} GB left")
    shown = [
        network_table(counted, generator), memory_table(plans, layout, whose), parts_table(
            f"stage 3 on {whose}, GB, without its judges", reinforced.parts | {"total": reinforced.total}, 2
        ), parts_table(f"disk, GB; {free / GB:,.1f} left", written.parts, 3),
    ]  # fmt: skip
    return Capacity(shown, problems)


def reinforcement(counted: Sizes, params: TrainRLParams, layout: Layout) -> Plan:
    """What stage 3 needs of a GPU."""
    sampling, kept = params.sampling, len(params.parts()[0])
    joint = 1 + (sampling.window_size - 1) * kept
    states = joint if params.update.gradient == "joint" else sampling.samples_per_pass
    return reinforcement_plan(counted, states, replace(layout, averaged=params.update.ema_decay > 0))


def adapter_spec(content: Content, multi: TrainMultiParams) -> AdapterSpec:
    """The form of the adapter of stage 2."""
    rank = params_of(content, "train_single", TrainSingleParams).rank
    samples = {name: section(content, "samples")[name] for name in ("image_size", "reference_size")}
    return check_params({**samples, "rank": rank, "experts": multi.experts}, AdapterSpec)


def read_generator(folder: Path) -> Generator:
    """What the files of a FluxPipeline tell; FLUX.1-dev as it was published if there is no such folder."""
    if not folder.is_dir():
        return Generator()
    stages = _json(folder / "vae" / "config.json")["block_out_channels"]
    assert isinstance(stages, list), "as diffusers writes it"
    return Generator(
        config=_json(folder / "transformer" / "config.json"),
        others={part: num_weights(folder / part) for part in OTHERS},
        text_tokens=int(str(_json(folder / "tokenizer_2" / "tokenizer_config.json")["model_max_length"])),
        token_px=2 ** len(stages),
        source=str(folder),
    )


def available(machine: Hardware) -> tuple[float, int, str]:
    """Bytes of memory, bytes of a frozen weight there, and whose memory it is."""
    if machine.gpu_gb is not None:
        return machine.gpu_gb * GB, 2, f"a GPU of {machine.gpu_gb:g} GB"
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        return memory, 2, f"this machine's GPU of {memory / GB:.1f} GB"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return memory, 4, f"this machine's main memory of {memory / GB:.1f} GB"


def refusal(
    counted: Sizes, layout: Layout, plans: dict[Sharding, Plan], chosen: Sharding, memory: float, whose: str
) -> str:
    """Why a plan does not fit, and the first change that makes it fit."""
    room = memory * ROOM
    parts = plans[chosen].parts
    largest = max(parts, key=lambda name: parts[name])
    told = (
        f"train_multi needs {plans[chosen].total / GB:.1f} GB, of which {parts[largest] / GB:.1f} GB for {largest}, "
        f"but {whose} has room for {room / GB:.1f} GB"
    )
    for samples in halved(layout.samples):
        for checkpointing in sorted({layout.checkpointing, True}):
            for kind in plans:
                other = replace(layout, sharding=kind, samples=samples, checkpointing=checkpointing)
                if plan(counted, other).total <= room:
                    return f"{told}; it fits with {advice(layout, other)}"
    return f"{told}; use more GPUs with MCPIPE_SHARDING=all, larger ones, a lower train_single.rank, or fewer experts"


def halved(samples: int) -> Iterator[int]:
    """So many samples, half as many, and so on down to one."""
    while samples > 1:
        yield samples
        samples = -(-samples // 2)
    yield 1


def advice(layout: Layout, other: Layout) -> str:
    """The environment that turns one layout into another."""
    steps = this_machine().accumulation_steps * -(-layout.samples // other.samples)
    words = [f"MCPIPE_SHARDING={other.sharding}"] if other.sharding != "none" else []
    words += ["MCPIPE_GRADIENT_CHECKPOINTING=1"] if other.checkpointing else []
    words += [f"MCPIPE_ACCUMULATION_STEPS={steps}"] if steps > 1 else []
    return " ".join(words) or "MCPIPE_SHARDING=none"


def network_table(counted: Sizes, generator: Generator) -> Table:
    """The weights, counted on the meta device."""
    shown = Table(title=f"network ({generator.source})", show_header=False, title_justify="left")
    shown.add_row("frozen transformer", f"{counted.base / 1e6:,.1f} M weights")
    shown.add_row("plain LoRA", f"{counted.plain / 1e6:,.1f} M")
    shown.add_row("experts and routers", f"{counted.experts / 1e6:,.1f} M")
    shown.add_row("text encoders and VAE", f"{sum(counted.others.values()) / 1e6:,.1f} M")
    shown.add_row("tokens of a sample", f"{counted.tokens:,}")
    return shown


def memory_table(plans: dict[Sharding, Plan], layout: Layout, whose: str) -> Table:
    """What each GPU holds, in GB, for every way to spread it."""
    kept = "inputs of blocks kept" if layout.checkpointing else "everything kept"
    title = f"stage 2 on {layout.gpus} x {whose}, GB each; {layout.samples} samples in a pass, {kept}"
    shown = Table("MCPIPE_SHARDING", *plans, title=title, title_justify="left")
    for part in next(iter(plans.values())).parts:
        shown.add_row(part, *(f"{each.parts[part] / GB:.2f}" for each in plans.values()))
    shown.add_row("total", *(f"{each.total / GB:.2f}" for each in plans.values()))
    return shown


def parts_table(title: str, parts: Mapping[str, float], digits: int) -> Table:
    """Bytes by what they are for, in GB."""
    shown = Table(title=title, show_header=False, title_justify="left")
    for part, size in parts.items():
        shown.add_row(part, f"{size / GB:.{digits}f}")
    return shown


def _json(file: Path) -> dict[str, JSON]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{file} is missing or damaged: {' '.join(str(error).split())}") from error
