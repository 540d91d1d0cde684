"""What a training runs on: processes, memory, compiler. No part of the settings, for none of it may change results.

Accelerate tells the processes and the precision (``accelerate launch --num_processes 8 --mixed_precision bf16``), the
environment the rest:

    MCPIPE_ACCUMULATION_STEPS      parts in which a process takes its share of a step, one after the other; 1
    MCPIPE_GRADIENT_CHECKPOINTING  1: keep only what enters each block, and compute it again in the backward pass; 0
    MCPIPE_COMPILE                 backend of torch.compile for the repeated blocks, such as inductor; none
    MCPIPE_SHARDING                what is spread over the processes: ``none``; ``adapter`` (its weights, gradients and
                                   optimiser, with a whole frozen base everywhere); ``all`` (the base, too)
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import GradientAccumulationPlugin, parse_flag_from_env
from torch import Tensor, nn
from torch.distributed import broadcast
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from mcpipe.flux.network import ReferenceFlux

SHARDINGS = ("none", "adapter", "all")
KINDS_OF_PASSES = 64
"""For how many a block may be compiled: with and without gradient, with so many states and references at once. Torch
gives up after 8, which reinforcement exceeds."""


@dataclass(frozen=True)
class Machine:
    """How the work of a step is laid out."""

    accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    compiler: str = ""
    """Backend of torch.compile; empty runs the network as it is."""
    sharding: str = "none"


def this_machine(environment: Mapping[str, str] = os.environ) -> Machine:
    """What the environment says.

    Raises:
        ValueError: a variable has a value that means nothing.
    """
    steps = environment.get("MCPIPE_ACCUMULATION_STEPS", "1")
    if not steps.isdecimal() or int(steps) < 1:
        raise ValueError(f"MCPIPE_ACCUMULATION_STEPS should be a number from 1, found {steps!r}")
    checkpointing = environment.get("MCPIPE_GRADIENT_CHECKPOINTING", "0")
    if checkpointing not in ("0", "1"):
        raise ValueError(f"MCPIPE_GRADIENT_CHECKPOINTING should be 0 or 1, found {checkpointing!r}")
    sharding = environment.get("MCPIPE_SHARDING", "none")
    if sharding not in SHARDINGS:
        raise ValueError(f"MCPIPE_SHARDING should be one of {', '.join(SHARDINGS)}, found {sharding!r}")
    return Machine(int(steps), checkpointing == "1", environment.get("MCPIPE_COMPILE", ""), sharding)


def join() -> PartialState:
    """How this process stands among the others. The first call takes its device: it comes before anything is loaded."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def accelerator() -> Accelerator:
    """Accelerate with what it was launched with; parts of steps are counted here, not there."""
    return Accelerator(gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1))


def is_main() -> bool:
    """Whether this process is the one that writes and talks."""
    return join().is_main_process


def agreed(wish: bool) -> bool:
    """What the main process wishes, told to all."""
    state = join()
    if state.num_processes == 1:
        return wish
    told = torch.tensor([wish], dtype=torch.uint8, device=state.device)
    broadcast(told, 0)
    return bool(told)


def lay_out(network: ReferenceFlux, machine: Machine, device: torch.device, half: bool) -> None:
    """Prepare a network with its adapter, in place, before it gets an optimiser; ``half``: compute in bfloat16."""
    network.to(device)
    if machine.gradient_checkpointing:
        network.transformer.enable_gradient_checkpointing()
    if machine.compiler:
        torch._dynamo.config.recompile_limit = KINDS_OF_PASSES
        network.transformer.compile_repeated_blocks(fullgraph=True, backend=machine.compiler)
    if machine.sharding != "none":
        shard(network, device, half, base=machine.sharding == "all")


def as_written(network: nn.Module) -> None:
    """Undo compilation: what follows a training opens and closes hooks; each would have every block compiled anew."""
    for module in network.modules():
        module._compiled_call_impl = None


def shard(network: ReferenceFlux, device: torch.device, half: bool, *, base: bool) -> None:
    """Spread the adapter over the processes, block by block; with ``base``, the frozen weights, too."""
    mesh = init_device_mesh(device.type, (join().num_processes,))
    whole = set() if base else {weight for weight in network.parameters() if not weight.requires_grad}
    policy = MixedPrecisionPolicy(torch.bfloat16 if half else None, torch.float32, cast_forward_inputs=False)
    transformer = network.transformer
    for module in (*transformer.transformer_blocks, *transformer.single_transformer_blocks, network):
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=whole)


def collected(tensor: Tensor) -> Tensor:
    """A sharded tensor as a whole one in the main process's memory, nothing in the others'; a whole one as it is.

    All processes have to call it together.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    whole = tensor.full_tensor()
    return whole.cpu() if is_main() else whole.new_empty(0)


def spread(whole: Tensor, like: Tensor) -> Tensor:
    """The share of this process in a tensor that all hold whole; the tensor itself if ``like`` is not sharded."""
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


@contextmanager
def whole_weights(module: nn.Module) -> Iterator[None]:
    """Within this context the trained weights of a sharded module are whole, in the main process, for being saved."""
    owners = [
        (owner, name, weight)
        for owner in module.modules()
        for name, weight in owner.named_parameters(recurse=False)
        if weight.requires_grad and isinstance(weight, DTensor)
    ]
    try:
        for owner, name, weight in owners:
            owner.register_parameter(name, nn.Parameter(collected(weight.detach())))
        yield
    finally:
        for owner, name, weight in owners:
            owner.register_parameter(name, weight)
