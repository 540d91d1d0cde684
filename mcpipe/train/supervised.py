"""What stages 1 and 2 share: flow matching on encoded samples, with AdamW at a constant rate."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from pydantic import Field
from torch import nn

from mcpipe.flux.network import ReferenceFlux
from mcpipe.objectives.flow import flow_loss, noised
from mcpipe.params import Params
from mcpipe.progress import Note, track
from mcpipe.records import JSON
from mcpipe.train.averaging import keep_average, take_average
from mcpipe.train.batches import Batch, Draws, EncodedSet, Share, batch_at
from mcpipe.train.checkpoint import Checkpoint
from mcpipe.train.curves import Ends
from mcpipe.train.fit import Losses, OnStep, engine_for, fit
from mcpipe.train.machine import as_written, is_main, this_machine


class SupervisedParams(Params):
    """How a supervised stage spends its steps."""

    seed: int = Field(ge=0)
    num_steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    """Samples per step, over all devices."""
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    shift: float = Field(gt=0)
    """Shift s of the noise levels trained on."""
    guidance: float = Field(ge=0)
    """Guidance scale told to the transformer while training."""
    text_dropout: float = Field(ge=0, le=1)
    """Chance that a sample is shown without its caption."""
    ema_decay: float = Field(ge=0, lt=1)
    """Of the moving average of the weights, which takes their place at the end; 0 keeps the weights themselves."""
    pictures_every: int = Field(ge=0)
    """Steps after which a few held-out samples are drawn; 0 draws none."""


Objective = Callable[[nn.Module, Batch], Losses]


def predicted(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The velocity a model predicts for a batch."""
    return model(noised(batch.clean, batch.noise, batch.t), batch.t, batch.conditions)


class Steps:
    """So many steps over the training samples; every step comes as the batches that this process takes of it."""

    def __init__(
        self, data: EncodedSet, draws: Draws, share: Share, num_steps: int, device: torch.device, note: Note
    ) -> None:
        self._data, self._draws, self._share, self._device = data, draws, share, device
        self._num_steps, self._note = num_steps, note
        self._taken = 0

    def batches(self) -> Iterator[Batch]:
        """The batches of the steps that are left."""
        steps = range(self._taken, self._num_steps)
        for step in track(steps, len(steps), "training steps", self._note) if is_main() else steps:
            for positions in self._share.positions(step, self._draws.batch_size):
                batch = batch_at(self._data, self._data.train, self._draws, positions, self._device)
                self._taken = step + 1
                yield batch

    def standing(self) -> dict[str, JSON]:
        """The number of steps taken."""
        return {"steps": self._taken}

    def resume(self, standing: Mapping[str, JSON]) -> None:
        """Go on after the steps that another run took."""
        steps = standing["steps"]
        assert isinstance(steps, int), "written by standing()"
        self._taken = steps


def train(
    network: ReferenceFlux,
    data: EncodedSet,
    params: SupervisedParams,
    objective: Objective,
    *,
    one_reference: bool,
    on_step: OnStep,
    checkpoint: Checkpoint,
) -> dict[str, JSON]:
    """Train the network's adapter; returns the ends of its curves and the flow loss on held-out samples around it."""
    machine = this_machine()

    def optimizer(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        adam = torch.optim.AdamW(weights, lr=params.learning_rate, weight_decay=params.weight_decay)
        if params.ema_decay:
            keep_average(adam, params.ema_decay)
        return adam

    engine = engine_for(network, machine, optimizer, params.max_grad_norm)
    here = engine.accelerator
    draws = Draws(params.seed, params.batch_size, params.shift, params.text_dropout, one_reference)
    ends = Ends(on_step)
    before = held_out_flow(network, data, draws)
    share = Share(here.process_index, here.num_processes, machine.accumulation_steps)
    course = Steps(data, draws, share, params.num_steps, here.device, ends.latest)
    fit(engine, course, lambda batch: objective(engine.model, batch), ends, checkpoint)
    as_written(network)
    if params.ema_decay:
        take_average(engine.optimizer)
    return {
        "trained_parameters": sum(weight.numel() for weight in network.parameters() if weight.requires_grad),
        "curves": {name: dict(values) for name, values in ends.means().items()},
        "held_out_flow": {"before": before, "after": held_out_flow(network, data, draws)},
    }


@torch.no_grad()
def held_out_flow(network: ReferenceFlux, data: EncodedSet, draws: Draws) -> float | None:
    """Flow loss on the validation samples, with the same noise at every call; ``None`` if there are no such samples."""
    if not data.val:
        return None
    with_text = replace(draws, text_dropout=0.0)
    device = next(network.parameters()).device
    losses = []
    for start in range(0, len(data.val), draws.batch_size):
        batch = batch_at(data, data.val, with_text, range(start, start + draws.batch_size), device)
        losses.append(float(flow_loss(predicted(network, batch), batch.clean, batch.noise)))
    return sum(losses) / len(losses)
