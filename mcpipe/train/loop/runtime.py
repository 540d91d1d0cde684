"""Runtime of a training: processes, precision, memory layout, compiler. No setting, because it must not change results.

Accelerate sets processes and precision (``accelerate launch --num_processes 8 --mixed_precision bf16``), the
environment sets the rest:

    MCPIPE_ACCUMULATION_STEPS      batches into which a process divides its share of a step; 1
    MCPIPE_GRADIENT_CHECKPOINTING  1: keep only the input of each block and recompute the block in the backward pass; 0
    MCPIPE_COMPILE                 backend of torch.compile for the repeated blocks, such as inductor; none
    MCPIPE_SHARDING                parts sharded over the processes: ``none``; ``adapter`` (its weights, gradients
                                   and optimiser state, with a whole frozen base everywhere); ``all`` (the base, too)
    MCPIPE_OFFLOAD_SCORERS         1: reward models rest in main memory while they score nothing; 0
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import GradientAccumulationPlugin, parse_flag_from_env
from torch import Tensor, nn
from torch.distributed import all_reduce, broadcast
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from mcpipe.flux.network import ReferenceFlux

SHARDINGS = ("none", "adapter", "all")
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


def runtime_from(environment: Mapping[str, str] = os.environ) -> TrainingRuntime:
    """The runtime that environment variables describe.

    Raises:
        ValueError: a variable has an invalid value.
    """
    steps = environment.get("MCPIPE_ACCUMULATION_STEPS", "1")
    if not steps.isdecimal() or int(steps) < 1:
        raise ValueError(f"MCPIPE_ACCUMULATION_STEPS should be a number from 1, found {steps!r}")
    switches = {}
    for name in ("MCPIPE_GRADIENT_CHECKPOINTING", "MCPIPE_OFFLOAD_SCORERS"):
        switches[name] = environment.get(name, "0")
        if switches[name] not in ("0", "1"):
            raise ValueError(f"{name} should be 0 or 1, found {switches[name]!r}")
    sharding = environment.get("MCPIPE_SHARDING", "none")
    if sharding not in SHARDINGS:
        raise ValueError(f"MCPIPE_SHARDING should be one of {', '.join(SHARDINGS)}, found {sharding!r}")
    checkpointing, offload = (switch == "1" for switch in switches.values())
    return TrainingRuntime(int(steps), checkpointing, environment.get("MCPIPE_COMPILE", ""), sharding, offload)


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


def prepare(network: ReferenceFlux, runtime: TrainingRuntime, device: torch.device, *, bfloat16: bool) -> None:
    """Prepare a network with its adapter in place, before it gets an optimiser."""
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
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
