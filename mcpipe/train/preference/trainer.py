"""Preference training through the one loop: start adapter, added LoRA, pairs in, an ordinary adapter out."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from mcpipe.core.progress import Note, track
from mcpipe.core.records import JSON
from mcpipe.flux.adapters import AdapterSpec, load_adapter
from mcpipe.flux.added_lora import add_lora
from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.tokens import layout
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.curves import CurveEnds
from mcpipe.train.loop.data import Share
from mcpipe.train.loop.fit import Losses, OnStep, fit
from mcpipe.train.loop.optimizers import adamw
from mcpipe.train.loop.runtime import is_main, runtime_from, uncompile
from mcpipe.train.preference.backbones import Network, engine_of, levels_of
from mcpipe.train.preference.data import PairBatch, PairDraws, StoredPairs, pair_batch
from mcpipe.train.preference.losses import preference_losses
from mcpipe.train.preference.params import Arm, PreferenceParams


class PairBatches:
    """The batches that this process takes of every optimiser step, as `mcpipe.train.loop.fit` consumes them."""

    def __init__(  # noqa: PLR0913  one argument per fact
        self,
        pairs: StoredPairs,
        draws: PairDraws,
        share: Share,
        params: PreferenceParams,
        device: torch.device,
        note: Note,
    ) -> None:
        self._pairs, self._draws, self._share, self._params = pairs, draws, share, params
        self._device, self._note = device, note
        self._num_done = 0

    def __iter__(self) -> Iterator[PairBatch]:
        """Iterate over the batches of the remaining steps."""
        steps = range(self._num_done, self._params.num_steps)
        for step in track(steps, len(steps), "training steps", self._note) if is_main() else steps:
            for positions in self._share.positions(step, self._params.batch_size):
                batch = pair_batch(self._pairs, self._draws, positions, self._device)
                self._num_done = step + 1
                yield batch

    @property
    def can_resume(self) -> bool:
        """Whether another run can go on from here: always."""
        return True

    def state_dict(self) -> dict[str, JSON]:
        """The number of steps taken."""
        return {"steps": self._num_done}

    def load_state_dict(self, state_dict: Mapping[str, JSON]) -> None:
        """Go on after the steps of an earlier run."""
        steps = state_dict["steps"]
        assert isinstance(steps, int), "written by state_dict()"
        self._num_done = steps


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
    batches = PairBatches(pairs, draws, share, params, accelerator.device, curve_ends.latest)

    def accumulate(batch: PairBatch) -> Losses:
        return engine.backward(preference_losses(engine.model, network, batch, arm, params))

    fit(engine, batches, accumulate, curve_ends, checkpoint)
    uncompile(network)
    return {
        "arm": arm,
        "learning_rate": params.learning_rate,
        "trained_parameters": sum(weight.numel() for weight in network.parameters() if weight.requires_grad),
        "curves": {name: dict(values) for name, values in curve_ends.means().items()},
    }
