"""Memory and disk space that a configuration needs, compared with what the hardware has."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import TypeVar, cast

import torch
from rich.table import Table

from mcpipe.cli.doctor.checkpoints import num_weights
from mcpipe.cli.doctor.fits import fewer_bits, refusal
from mcpipe.cli.doctor.reinforcement import Reinforcement, refused_reinforcement, scorer_bytes
from mcpipe.cli.outputs import existing
from mcpipe.cli.settings import Content, section
from mcpipe.core.params import check_params, params_of, people_numbers
from mcpipe.core.records import JSON
from mcpipe.curate.subjects import SubjectsParams
from mcpipe.flux.adapters import AdapterSpec
from mcpipe.flux.budget import (
    FLUX_DEV,
    FLUX_DEV_OTHERS,
    FLUX_DEV_T5_EMBEDDING,
    GB,
    MemoryLayout,
    MemoryPlan,
    Optimizer,
    Sharding,
    Sizes,
    disk,
    inference_plans,
    plan,
    sizes,
)
from mcpipe.flux.quantization import Quantization
from mcpipe.train.loop.runtime import runtime_from
from mcpipe.train.multi import TrainMultiParams
from mcpipe.train.rl.params import TrainRLParams
from mcpipe.train.single import TrainSingleParams

K = TypeVar("K", bound=str)

ROOM = 0.92
"""Share of the memory that a plan may fill; the rest is for the driver, workspaces and fragmentation (estimate)."""
OTHERS = ("text_encoder", "text_encoder_2", "vae")
SHARDINGS: tuple[Sharding, ...] = ("none", "adapter", "all")


@dataclass(frozen=True)
class Hardware:
    """GPUs and disk of the machine at hand, or of one under consideration."""

    gpus: int
    gpu_gb: float | None
    """Memory of each GPU in GB; ``None`` for the memory of this hardware."""
    data: Path
    """Folder of the outputs."""


@dataclass(frozen=True)
class GeneratorSize:
    """Values that determine the size of a generator."""

    config: dict[str, JSON] = field(default_factory=lambda: dict(FLUX_DEV))
    others: dict[str, int] = field(default_factory=lambda: dict(FLUX_DEV_OTHERS))
    text_tokens: int = 512
    token_px: int = 16
    """Side in pixels of the square that a token covers."""
    t5_kept: int = FLUX_DEV_T5_EMBEDDING
    """Weights of T5's embedding, which are never rounded."""
    source: str = "FLUX.1-dev as published; the folder is not there"


@dataclass(frozen=True)
class Capacity:
    """Memory and disk space that a configuration needs."""

    tables: list[Table]
    problems: list[str]
    """One line for everything that does not fit."""


def capacity(content: Content, models: Mapping[str, Path], hardware: Hardware) -> Capacity:
    """Memory and disk space that the settings need; ``models`` holds the folders of the generator and the scorers.

    Raises:
        ValueError: the generator's transformer is not FLUX's, or an option or environment variable is invalid.
    """
    _check_hardware(hardware)
    generator = read_generator(models["generator"])
    multi = params_of(content, "train_multi", TrainMultiParams)
    spec = adapter_spec(content, multi)
    references = people_numbers(params_of(content, "subjects", SubjectsParams).num_people)[-1]
    counted = sizes(
        generator.config, spec, references=references, text_tokens=generator.text_tokens,
        token_px=generator.token_px, others=generator.others, t5_kept=generator.t5_kept,
    )  # fmt: skip
    runtime = runtime_from()
    memory, weight_bytes, device = available(hardware)
    layout = layout_of_stage_two(multi, hardware.gpus, weight_bytes)
    kinds = SHARDINGS if hardware.gpus > 1 else SHARDINGS[:1]
    plans: dict[Sharding, MemoryPlan] = {kind: plan(counted, replace(layout, sharding=kind)) for kind in kinds}
    problems = []
    chosen: Sharding = cast(Sharding, runtime.sharding) if runtime.sharding in kinds else "none"
    if plans[chosen].total > memory * ROOM:
        problems.append(refusal(counted, layout, plans, chosen, memory * ROOM, device))
    reinforced = Reinforcement(
        counted, params_of(content, "train_rl", TrainRLParams), replace(layout, quantization="none"),
        scorer_bytes(models), runtime.offload_scorers,
    )  # fmt: skip
    problems += refused_reinforcement(reinforced, kinds, chosen, memory * ROOM, device)
    written = disk(counted)
    free = shutil.disk_usage(existing(hardware.data)).free
    if written.total > free:
        problems.append(f"trainings write {written.total / GB:.1f} GB, but {hardware.data} has {free / GB:.1f} GB left")
    tables = [
        network_table(counted, generator),
        memory_table(f"stage 2 on {pass_title(layout, device)}", plans),
        rows_table(
            f"stage 2 in fewer bits, no sharding, GB each; {layout.samples} samples in a pass, inputs of blocks kept",
            fewer_bits(counted, layout),
            "base, optimiser",
        ),
        memory_table(f"stage 3 on {layout.gpus} x {device}, GB each; {reinforced.title}", reinforced.plans(kinds)),
        rows_table(
            f"mcpipe generate on a GPU, GB; {references} references", inference_plans(counted), "--memory --quantize"
        ),
        parts_table(f"disk, GB; {free / GB:,.1f} left", written.parts, 3),
    ]
    return Capacity(tables, problems)


def layout_of_stage_two(multi: TrainMultiParams, gpus: int, weight_bytes: int) -> MemoryLayout:
    """Distribution of stage 2 over GPUs as the environment sets it, without sharding."""
    runtime = runtime_from()
    samples = -(-multi.batch_size // (gpus * runtime.accumulation_steps))
    return MemoryLayout(
        gpus, "none", samples, runtime.gradient_checkpointing, multi.ema_decay > 0, weight_bytes,
        cast(Quantization, runtime.quantization), cast(Optimizer, runtime.optimizer),
    )  # fmt: skip


def adapter_spec(content: Content, multi: TrainMultiParams) -> AdapterSpec:
    """Specification of the adapter of stage 2."""
    rank = params_of(content, "train_single", TrainSingleParams).rank
    samples = {name: section(content, "samples")[name] for name in ("image_size", "reference_size")}
    return check_params({**samples, "rank": rank, "experts": multi.experts}, AdapterSpec)


def read_generator(folder: Path) -> GeneratorSize:
    """Size of a FluxPipeline from its files; that of FLUX.1-dev as published if the folder does not exist."""
    if not folder.is_dir():
        return GeneratorSize()
    t5 = _json(folder / "text_encoder_2" / "config.json")
    stages = _json(folder / "vae" / "config.json")["block_out_channels"]
    assert isinstance(stages, list), "as diffusers writes it"
    return GeneratorSize(
        config=_json(folder / "transformer" / "config.json"),
        others={part: num_weights(folder / part) for part in OTHERS},
        text_tokens=int(str(_json(folder / "tokenizer_2" / "tokenizer_config.json")["model_max_length"])),
        token_px=2 ** len(stages),
        t5_kept=int(str(t5["vocab_size"])) * int(str(t5["d_model"])),
        source=str(folder),
    )


def available(hardware: Hardware) -> tuple[float, int, str]:
    """Bytes of memory, bytes of a frozen weight in it, and a description of the device."""
    if hardware.gpu_gb is not None:
        return hardware.gpu_gb * GB, 2, f"a GPU of {hardware.gpu_gb:g} GB"
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        return memory, 2, f"this machine's GPU of {memory / GB:.1f} GB"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return memory, 4, f"this machine's main memory of {memory / GB:.1f} GB"


def network_table(counted: Sizes, generator: GeneratorSize) -> Table:
    """Numbers of weights and tokens, counted on the meta device."""
    table = Table(title=f"network ({generator.source})", show_header=False, title_justify="left")
    table.add_row("frozen transformer", f"{counted.base / 1e6:,.1f} M weights")
    table.add_row("plain LoRA", f"{counted.plain / 1e6:,.1f} M")
    table.add_row("experts and routers", f"{counted.experts / 1e6:,.1f} M")
    table.add_row("text encoders and VAE", f"{sum(counted.others.values()) / 1e6:,.1f} M")
    table.add_row("tokens of a sample", f"{counted.tokens:,}")
    return table


def pass_title(layout: MemoryLayout, device: str) -> str:
    """GPUs, samples in a pass and what is kept of them, in words."""
    kept = "inputs of blocks kept" if layout.checkpointing else "everything kept"
    return f"{layout.gpus} x {device}, GB each; {layout.samples} samples in a pass, {kept}"


def memory_table(title: str, plans: Mapping[K, MemoryPlan]) -> Table:
    """Memory of each GPU, in GB, for every sharding."""
    table = Table("MCPIPE_SHARDING", *plans, title=title, title_justify="left")
    for part in next(iter(plans.values())).parts:
        table.add_row(part, *(f"{each.parts[part] / GB:.2f}" for each in plans.values()))
    table.add_row("total", *(f"{each.total / GB:.2f}" for each in plans.values()))
    return table


def rows_table(title: str, plans: Mapping[str, MemoryPlan], choice: str) -> Table:
    """Memory of a GPU, in GB, with a row for every value of a ``choice``; purposes that take nothing are left out."""
    parts = [part for part in next(iter(plans.values())).parts if any(each.parts[part] for each in plans.values())]
    table = Table(title=title, title_justify="left")
    table.add_column(choice, overflow="fold", no_wrap=False, min_width=max(map(len, plans)))
    for part in (*parts, "total"):
        table.add_column(part, overflow="fold")
    for name, each in plans.items():
        table.add_row(name, *(f"{each.parts[part] / GB:.2f}" for part in parts), f"{each.total / GB:.2f}")
    return table


def parts_table(title: str, parts: Mapping[str, float], digits: int) -> Table:
    """Bytes by purpose, in GB."""
    table = Table(title=title, show_header=False, title_justify="left")
    for part, size in parts.items():
        table.add_row(part, f"{size / GB:.{digits}f}")
    return table


def _check_hardware(hardware: Hardware) -> None:
    if hardware.gpus < 1:
        raise ValueError(f"--gpus should be 1 or more, not {hardware.gpus}")
    if hardware.gpu_gb is not None and not 0 < hardware.gpu_gb < inf:
        raise ValueError(f"--gpu-gb should be a positive number, not {hardware.gpu_gb:g}")


def _json(file: Path) -> dict[str, JSON]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{file} is missing or damaged: {' '.join(str(error).split())}") from error
