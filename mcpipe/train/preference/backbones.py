"""What preference training asks of a backbone beside the velocity: its reference, its features, its optimiser.

Both networks answer a call ``network(noisy, t, conditions)`` with a velocity on the same grid of tokens, so that
losses, masks and the loop know neither of them.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn

from mcpipe.flux.added_lora import reference_policy
from mcpipe.flux.features import MatchScores, recorded_matches
from mcpipe.flux.network import ReferenceFlux
from mcpipe.objectives.focus import Norm
from mcpipe.sdxl.network import ReferenceUNet
from mcpipe.train.loop.fit import Engine, engine_for
from mcpipe.train.loop.runtime import TrainingRuntime, make_accelerator
from mcpipe.train.preference.data import Levels

Network = ReferenceFlux | ReferenceUNet
MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def reference_of(network: Network) -> AbstractContextManager[None]:
    """A context in which a network computes without its added LoRA and without a gradient."""
    return network.reference() if isinstance(network, ReferenceUNet) else reference_policy(network.transformer)


def matches_of(network: Network, norm: Norm, num_images: int) -> AbstractContextManager[MatchScores]:
    """A context in which a pass leaves the similarity S of references and tokens, at least of its first images."""
    if isinstance(network, ReferenceUNet):
        return network.matches(norm, num_images)
    return recorded_matches(network, norm)


def levels_of(network: Network) -> Levels | None:
    """The noise levels on which a network was trained; ``None`` for those of the setting ``flow.shift``."""
    return network.levels.drawn if isinstance(network, ReferenceUNet) else None


def engine_of(network: Network, runtime: TrainingRuntime, make_optimizer: MakeOptimizer, max_norm: float) -> Engine:
    """An engine for a network with an added LoRA.

    Raises:
        ValueError: the runtime shards, compiles or rounds weights of SDXL, which is not provided for.
    """
    if isinstance(network, ReferenceFlux):
        return engine_for(network, runtime, make_optimizer, max_norm)
    if runtime.sharding != "none" or runtime.compiler or runtime.quantization != "none":
        raise ValueError("with SDXL leave out MCPIPE_SHARDING, MCPIPE_COMPILE and MCPIPE_QUANTIZE")
    accelerator = make_accelerator()
    network.to(accelerator.device)
    if runtime.gradient_checkpointing:
        network.unet.enable_gradient_checkpointing()
    optimizer = make_optimizer([parameter for parameter in network.parameters() if parameter.requires_grad])
    model, optimizer = accelerator.prepare(network, optimizer)
    return Engine(accelerator, model, optimizer, max_norm, runtime.accumulation_steps)
