"""Runtime of a training: processes, precision, memory, compiler. No setting: it changes results by rounding only.

Accelerate sets processes and precision (``accelerate launch --num_processes 8 --mixed_precision bf16``), the
environment sets the rest:

    MCPIPE_ACCUMULATION_STEPS      batches into which a process divides its share of a step; 1
    MCPIPE_GRADIENT_CHECKPOINTING  1: keep only the input of each block and recompute the block in the backward pass; 0
    MCPIPE_COMPILE                 backend of torch.compile for the repeated blocks, such as inductor; none
    MCPIPE_SHARDING                parts sharded over the processes: ``none``; ``adapter`` (its weights, gradients
                                   and optimiser state, with a whole frozen base everywhere); ``all`` (the base, too)
    MCPIPE_OFFLOAD_SCORERS         1: reward models rest in main memory while they score nothing; 0
    MCPIPE_QUANTIZE                ``none``; ``nf4``: frozen weights of transformer and T5 in 4 bits (stages 1 and 2)
    MCPIPE_OPTIMIZER               ``adamw``; ``adamw8bit``: its moments in 8 bits; ``paged_adamw8bit``: and in main
                                   memory when the GPU is full
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import GradientAccumulationPlugin, gather_object, parse_flag_from_env
from torch import Tensor, nn
from torch.distributed import all_reduce, broadcast
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from mcpipe.flux.backbone import FluxPipeline, load_generator
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.quantization import is_quantized, quantize

Result = TypeVar("Result")

SHARDINGS = ("none", "adapter", "all")
BASES = ("none", "nf4")
"""Forms of frozen weights under a training. FP8 is none: what a layer keeps for its backward pass would be rounded."""
OPTIMIZERS = ("adamw", "adamw8bit", "paged_adamw8bit")
PRECISIONS = ("no", "bf16")
FULL_IN_MAIN = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
"""State of the trained weights alone, whole in the main process's main memory and empty in all others."""
NUM_VARIANTS = 64
"""Shapes and modes for which a block may be compiled: with and without gradient, numbers of states and references.
Torch's own limit is 8, which stage 3 exceeds."""


@dataclass(frozen=True)
class TrainingRuntime:
    """How a step is executed."""

    accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    compiler: str = ""
    """Backend of torch.compile; empty runs the network eagerly."""
    sharding: str = "none"
    offload_scorers: bool = False
    quantization: str = "none"
    """Form of the frozen weights of transformer and T5."""
    optimizer: str = "adamw"


def runtime_from(environment: Mapping[str, str] = os.environ) -> TrainingRuntime:
    """The runtime that environment variables describe.

    Raises:
        ValueError: a variable has an invalid value, two exclude each other, or a package is missing.
    """
    steps = environment.get("MCPIPE_ACCUMULATION_STEPS", "1")
    if not steps.isdecimal() or int(steps) < 1:
        raise ValueError(f"MCPIPE_ACCUMULATION_STEPS should be a number from 1, found {steps!r}")
    runtime = TrainingRuntime(
        accumulation_steps=int(steps),
        gradient_checkpointing=_switch(environment, "MCPIPE_GRADIENT_CHECKPOINTING"),
        compiler=environment.get("MCPIPE_COMPILE", ""),
        sharding=_choice(environment, "MCPIPE_SHARDING", SHARDINGS),
        offload_scorers=_switch(environment, "MCPIPE_OFFLOAD_SCORERS"),
        quantization=_choice(environment, "MCPIPE_QUANTIZE", BASES),
        optimizer=_choice(environment, "MCPIPE_OPTIMIZER", OPTIMIZERS),
    )
    _check_fewer_bits(runtime)
    return runtime


def _choice(environment: Mapping[str, str], name: str, values: Sequence[str]) -> str:
    """The value of a variable, by default the first one."""
    value = environment.get(name, values[0])
    if value not in values:
        raise ValueError(f"{name} should be one of {', '.join(values)}, found {value!r}")
    return value


def _switch(environment: Mapping[str, str], name: str) -> bool:
    value = environment.get(name, "0")
    if value not in ("0", "1"):
        raise ValueError(f"{name} should be 0 or 1, found {value!r}")
    return value == "1"


def _check_fewer_bits(runtime: TrainingRuntime) -> None:
    """Make sure that bitsandbytes is there for what needs it, and that nothing of it is to be sharded."""
    wanted = {"MCPIPE_QUANTIZE": runtime.quantization, "MCPIPE_OPTIMIZER": runtime.optimizer}
    given = [f"{name}={value}" for name, value in wanted.items() if value not in ("none", "adamw")]
    if not given:
        return
    if find_spec("bitsandbytes") is None:
        raise ValueError(f"{given[0]} needs bitsandbytes, which is not installed; run: pip install -e '.[lowmem]'")
    if runtime.sharding == "all" and runtime.quantization != "none":
        raise ValueError(
            "MCPIPE_QUANTIZE=nf4 and MCPIPE_SHARDING=all exclude each other: the packed weights of bitsandbytes cannot "
            "be divided over processes; use MCPIPE_SHARDING=adapter, which keeps them whole on every GPU"
        )
    if runtime.sharding != "none" and runtime.optimizer != "adamw":
        raise ValueError(
            f"MCPIPE_OPTIMIZER={runtime.optimizer} and MCPIPE_SHARDING={runtime.sharding} exclude each other: the "
            "optimisers of bitsandbytes know no sharded weights; use MCPIPE_OPTIMIZER=adamw, whose state is sharded"
        )


def load_base(generator: Path) -> FluxPipeline:
    """The generator for a training; in main memory if `place_base` is to round its frozen weights.

    Raises:
        FileNotFoundError: see `mcpipe.flux.backbone.load_generator`.
        ValueError: likewise, or an environment variable has an invalid value.
    """
    return load_generator(generator, on_device=runtime_from().quantization == "none")


def place_base(pipeline: FluxPipeline) -> None:
    """Round the frozen weights of a pipeline with its adapter, if the runtime says so, and bring it to the device."""
    if runtime_from().quantization == "none":
        return
    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    quantize(pipeline, "nf4", pipeline.transformer.x_embedder.weight.dtype, device)
    pipeline.to(device)


def process_state() -> PartialState:
    """Rank and device of this process. The first call claims the device, so it precedes any loading."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def make_accelerator() -> Accelerator:
    """Accelerate as it was launched, except that gradient accumulation is counted by `mcpipe.train.loop.fit`.

    Raises:
        ValueError: it was launched with a precision other than ``no`` and ``bf16``; float16 needs a scaled loss.
    """
    accelerator = Accelerator(gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1))
    if accelerator.mixed_precision not in PRECISIONS:
        raise ValueError(
            f"accelerate was launched with --mixed_precision {accelerator.mixed_precision}; use "
            f"{' or '.join(PRECISIONS)}"
        )
    return accelerator


def is_main() -> bool:
    """Whether this process writes and logs."""
    return process_state().is_main_process


def broadcast_flag(flag: bool) -> bool:
    """The main process's value, on all processes."""
    state = process_state()
    if state.num_processes == 1:
        return flag
    tensor = torch.tensor([flag], dtype=torch.uint8, device=state.device)
    broadcast(tensor, 0)
    return bool(tensor)


def mean_over_processes(tensor: Tensor) -> Tensor:
    """The mean of a tensor over all processes, which call it together; without a gradient if there are several."""
    num_processes = process_state().num_processes
    if num_processes == 1:
        return tensor
    total = tensor.detach().clone()
    all_reduce(total)
    return total / num_processes


def shared_out(network: nn.Module, num: int, work: Callable[[int], Result]) -> list[Result]:
    """Results of a function of 0 to ``num`` - 1 that runs the network, in order, for all processes.

    Each process makes a part of the calls, whose results are in main memory; where weights are sharded, each makes all
    of them, because processes then run the network together.
    """
    state = process_state()
    if state.num_processes == 1 or any(isinstance(weight, DTensor) for weight in network.parameters()):
        return [work(number) for number in range(num)]
    own = [(number, work(number)) for number in range(state.process_index, num, state.num_processes)]
    return [result for _, result in sorted(gather_object(own), key=lambda numbered: numbered[0])]


def prepare(network: ReferenceFlux, runtime: TrainingRuntime, device: torch.device, *, bfloat16: bool) -> None:
    """Prepare a network with its adapter in place, before it gets an optimiser.

    Raises:
        ValueError: the frozen weights should be rounded, but this training does not provide for it.
    """
    if runtime.quantization != "none" and not is_quantized(network):
        raise ValueError("MCPIPE_QUANTIZE=nf4 is for train_single and train_multi alone; leave it out here")
    network.to(device)
    if runtime.gradient_checkpointing:
        network.transformer.enable_gradient_checkpointing()
    if runtime.compiler:
        torch._dynamo.config.recompile_limit = NUM_VARIANTS
        network.transformer.compile_repeated_blocks(fullgraph=True, backend=runtime.compiler)
    if runtime.sharding != "none":
        shard(network, device, bfloat16=bfloat16, base=runtime.sharding == "all")


def uncompile(network: nn.Module) -> None:
    """Undo compilation: evaluation opens and closes hooks, each of which would recompile every block."""
    for module in network.modules():
        module._compiled_call_impl = None


def shard(network: ReferenceFlux, device: torch.device, *, bfloat16: bool, base: bool) -> None:
    """Shard the adapter over the processes block by block (FSDP2); with ``base``, the frozen weights, too."""
    mesh = init_device_mesh(device.type, (process_state().num_processes,))
    unsharded = set() if base else {weight for weight in network.parameters() if not weight.requires_grad}
    policy = MixedPrecisionPolicy(torch.bfloat16 if bfloat16 else None, torch.float32, cast_forward_inputs=False)
    transformer = network.transformer
    for module in (*transformer.transformer_blocks, *transformer.single_transformer_blocks, network):
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=unsharded)


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """The trained weights by name, sharded or not: whole in the main process's main memory, none elsewhere.

    All processes call it together. Without sharding on a CPU, the tensors share the weights' memory.
    """
    state = get_model_state_dict(module, options=FULL_IN_MAIN)
    scales = tuple(f"{name}." for name, weight in module.named_parameters() if hasattr(weight, "quant_state"))
    return {
        name: value
        for name, value in state.items()
        if isinstance(value, Tensor) and not (scales and name.startswith(scales))
    }
