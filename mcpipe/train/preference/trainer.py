"""Preference training through the one loop: start adapter, added LoRA, pairs in, an ordinary adapter out."""

from pathlib import Path

import torch
from torch import nn

from mcpipe.core.records import JSON
from mcpipe.flux.adapters import AdapterSpec, load_adapter
from mcpipe.flux.added_lora import add_lora
from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.tokens import layout
from mcpipe.train.loop.batches import StepBatches
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.curves import CurveEnds
from mcpipe.train.loop.data import Share
from mcpipe.train.loop.fit import Losses, OnStep, fit
from mcpipe.train.loop.optimizers import adamw
from mcpipe.train.loop.runtime import runtime_from, uncompile
from mcpipe.train.preference.backbones import Network, engine_of, levels_of
from mcpipe.train.preference.data import PairBatch, PairDraws, StoredPairs, pair_batch
from mcpipe.train.preference.losses import preference_losses
from mcpipe.train.preference.params import Arm, PreferenceParams


def start_network(
    pipeline: FluxPipeline, start: Path, pairs: StoredPairs, guidance: float
) -> tuple[AdapterSpec, ReferenceFlux]:
    """Load the start adapter; returns its specification and the network with references.

    Raises:
        FileNotFoundError: there is no start adapter.
        ValueError: it is damaged, does not fit the generator, or was trained for other sizes than those of the pairs.
    """
    spec = load_adapter(pipeline, start)
    if (spec.image_size, spec.reference_size) != pairs.sizes:
        raise ValueError(
            f"the adapter {start} was trained for images of {spec.image_size} px and references of "
            f"{spec.reference_size} px, but the pairs have {pairs.sizes[0]} and {pairs.sizes[1]}"
        )
    return spec, ReferenceFlux(pipeline.transformer, layout(pipeline, *pairs.sizes), guidance)


def preference_network(
    pipeline: FluxPipeline, start: Path, pairs: StoredPairs, params: PreferenceParams, seed: int
) -> tuple[AdapterSpec, ReferenceFlux]:
    """Load the start adapter, freeze it, and add a LoRA; returns the start's specification and the network.

    Raises:
        FileNotFoundError: there is no start adapter.
        ValueError: see `start_network`.
    """
    spec, network = start_network(pipeline, start, pairs, params.guidance)
    add_lora(pipeline.transformer, params.rank, seed)
    return spec, network


def train_preference(  # noqa: PLR0913  one argument per fact
    network: Network,
    pairs: StoredPairs,
    arm: Arm,
    seed: int,
    params: PreferenceParams,
    on_step: OnStep,
    checkpoint: Checkpoint,
) -> dict[str, JSON]:
    """Train the added LoRA; returns facts about the training."""
    runtime = runtime_from()

    def make_optimizer(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        return adamw(runtime, weights, params.learning_rate, params.weight_decay)

    engine = engine_of(network, runtime, make_optimizer, params.max_grad_norm)
    accelerator = engine.accelerator
    share = Share(accelerator.process_index, accelerator.num_processes, runtime.accumulation_steps)
    draws = PairDraws(seed, params.shift, params.shuffle_references, levels_of(network))
    curve_ends = CurveEnds(on_step)

    def drawn(positions: range) -> PairBatch:
        return pair_batch(pairs, draws, positions, accelerator.device)

    def accumulate(batch: PairBatch) -> Losses:
        return engine.backward(preference_losses(engine.model, network, batch, arm, params))

    batches = StepBatches(drawn, share, params.num_steps, params.batch_size, curve_ends.latest)
    fit(engine, batches, accumulate, curve_ends, checkpoint)
    uncompile(network)
    return {
        "arm": arm,
        "learning_rate": params.learning_rate,
        "trained_parameters": sum(weight.numel() for weight in network.parameters() if weight.requires_grad),
        "curves": {name: dict(values) for name, values in curve_ends.means().items()},
    }
