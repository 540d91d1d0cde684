"""What stages 1 and 2 share: flow matching on encoded samples, with AdamW at a constant rate."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from mcpipe.core.params import Params, TakenFrom
from mcpipe.core.progress import Note, track
from mcpipe.core.records import JSON
from mcpipe.flux.network import ReferenceFlux
from mcpipe.objectives.flow import flow_loss, noised
from mcpipe.train.loop.averaging import keep_average, take_average
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.curves import Ends
from mcpipe.train.loop.data import Batch, Draws, EncodedSet, Share, batch_at, collate, draw
from mcpipe.train.loop.fit import Losses, OnStep, engine_for, fit
from mcpipe.train.loop.runtime import as_written, is_main, this_machine

NUM_SCORED = 16
"""Held-out samples on which references, attention and experts are judged before and after training."""
NOISE_BINS = {"0.00-0.25": 0.125, "0.25-0.50": 0.375, "0.50-0.75": 0.625, "0.75-1.00": 0.875}
"""Noise levels t at which they are judged, each the middle of a quarter."""


class SupervisedParams(Params):
    """How a supervised stage spends its steps."""

    seed: int = Field(ge=0)
    num_steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    """Samples per step, over all devices."""
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    shift: Annotated[float, Field(gt=0), TakenFrom("flow.shift")]
    """Shift s of the noise levels trained on."""
    guidance: Annotated[float, Field(ge=0), TakenFrom("flow.guidance")]
    """Guidance scale told to the transformer while training."""
    text_dropout: Annotated[float, Field(ge=0, le=1), TakenFrom("flow.text_dropout")]
    """Chance that a sample is shown without its caption."""
    ema_decay: float = Field(ge=0, lt=1)
    """Decay of the moving average of the weights, which replaces them at the end; 0 keeps the weights themselves."""
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
    before = held_out(network, data, draws)
    share = Share(here.process_index, here.num_processes, machine.accumulation_steps)
    course = Steps(data, draws, share, params.num_steps, here.device, ends.latest)
    fit(engine, course, lambda batch: objective(engine.model, batch), ends, checkpoint)
    as_written(network)
    if params.ema_decay:
        take_average(engine.optimizer)
    after = held_out(network, data, draws)
    return {
        "trained_parameters": sum(weight.numel() for weight in network.parameters() if weight.requires_grad),
        "curves": {name: dict(values) for name, values in ends.means().items()},
        **{name: {"before": before[name], "after": after[name]} for name in before},
    }


def held_out(network: ReferenceFlux, data: EncodedSet, draws: Draws) -> dict[str, JSON]:
    """Facts about the validation samples, with the same noise at every call."""
    return {
        "held_out_flow": held_out_flow(network, data, draws),
        "reference_gain": reference_gain(network, data, draws, min(NUM_SCORED, len(data.val))),
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


def reference_gain(network: ReferenceFlux, data: EncodedSet, draws: Draws, num: int) -> dict[str, JSON]:
    """How much worse faces are predicted where references are wrong, which tells whether they are used at all.

    ``others`` are those of another sample, ``swapped`` the right ones in another order. The gain is the flow loss on
    tokens of faces with these less that with the right ones: same text, same noise, positive if references help. Told
    are its mean over ``num`` held-out samples and all noise levels, the standard error of that mean over samples, its
    means per range of noise levels, and under ``right`` the loss itself. What there is no example of is left out.
    """
    losses: dict[str, list[dict[str, float]]] = {}
    for position in range(num):
        by_kind: dict[str, dict[str, float]] = {}
        for name, t in NOISE_BINS.items():
            for kind, loss in _face_losses(network, data, replace(draws, text_dropout=0.0), position, t).items():
                by_kind.setdefault(kind, {})[name] = loss
        right = by_kind.get("right", {})
        for kind, found in by_kind.items():
            less = {} if kind == "right" else right
            losses.setdefault(kind, []).append({name: loss - less.get(name, 0.0) for name, loss in found.items()})
    return {kind: _summed_up(rows) for kind, rows in losses.items()}


@torch.no_grad()
def _face_losses(network: ReferenceFlux, data: EncodedSet, draws: Draws, position: int, t: float) -> dict[str, float]:
    """The flow loss on tokens of faces with the right references of a held-out sample, and with wrong ones."""
    sample, noise, level = draw(data, data.val, draws, position)
    inside = sample.masks.any(0)
    if not bool(inside.any()):
        return {}
    epoch, place = divmod(position, len(data.val))
    following = epoch * len(data.val) + (place + 1) % len(data.val)
    num = len(sample.references)
    shown = {"right": sample.references}
    if len(data.val) > 1:
        theirs = draw(data, data.val, draws, following)[0].references
        shown["others"] = theirs[torch.arange(num) % len(theirs)]
    if num > 1:
        shown["swapped"] = sample.references.roll(1, 0)
    drawn = [(replace(sample, references=references), noise, level) for references in shown.values()]
    batch = collate(drawn, next(network.parameters()).device)
    batch = replace(batch, t=torch.full_like(batch.t, t))
    errors = (predicted(network, batch) - (batch.noise - batch.clean)).square().mean(-1).cpu()
    return dict(zip(shown, errors[:, inside].mean(-1).tolist(), strict=True))


def _summed_up(rows: list[dict[str, float]]) -> dict[str, JSON]:
    """Mean, standard error and means per range of noise levels, of one row per sample."""
    table = torch.tensor([list(row.values()) for row in rows], dtype=torch.float64)
    error = float(table.mean(1).std() / len(rows) ** 0.5) if len(rows) > 1 else None
    by_range: dict[str, JSON] = dict(zip(NOISE_BINS, table.mean(0).tolist(), strict=True))
    return {"mean": float(table.mean()), "standard_error": error, "by_noise_level": by_range}
