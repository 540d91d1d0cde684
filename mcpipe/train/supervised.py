"""Supervised training of stages 1 and 2: flow matching on encoded samples, with AdamW at a constant learning rate."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from mcpipe.core.params import Params, TakenFrom
from mcpipe.core.records import JSON
from mcpipe.flux.network import ReferenceFlux
from mcpipe.objectives.flow import flow_loss, noised
from mcpipe.train.loop.averaging import keep_average, take_average
from mcpipe.train.loop.batches import StepBatches
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.curves import CurveEnds
from mcpipe.train.loop.data import Batch, Draws, EncodedSet, Share, batch_at, collate, draw
from mcpipe.train.loop.fit import Losses, OnStep, engine_for, fit
from mcpipe.train.loop.launch import Processes
from mcpipe.train.loop.optimizers import adamw
from mcpipe.train.loop.runtime import runtime_from, shared_out, uncompile

NUM_SCORED = 16
"""Held-out samples on which references, attention and experts are evaluated before and after training."""
NOISE_BINS = {"0.00-0.25": 0.125, "0.25-0.50": 0.375, "0.50-0.75": 0.625, "0.75-1.00": 0.875}
"""Noise levels t of the evaluation: the middle of each quarter."""


class SupervisedParams(Params):
    """Settings that stages 1 and 2 share."""

    seed: int = Field(ge=0)
    num_steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    """Samples per step, over all devices."""
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    shift: Annotated[float, Field(gt=0), TakenFrom("flow.shift")]
    """Shift s of the noise levels in training."""
    guidance: Annotated[float, Field(ge=0), TakenFrom("flow.guidance")]
    """Guidance scale given to the transformer in training."""
    text_dropout: Annotated[float, Field(ge=0, le=1), TakenFrom("flow.text_dropout")]
    """Probability that a sample is trained without its caption."""
    ema_decay: float = Field(ge=0, lt=1)
    """Decay of the moving average that replaces the weights at the end; 0 keeps the weights themselves."""
    pictures_every: int = Field(ge=0)
    """Steps between two previews of a few held-out samples; 0 for none."""
    processes: Processes

    def draws(self, *, one_reference: bool) -> Draws:
        """Parameters of the random draws of a batch."""
        return Draws(self.seed, self.batch_size, self.shift, self.text_dropout, one_reference)


def parts_of(params: SupervisedParams) -> int:
    """Samples of a step that processes share: of each batch, if a step is divided into several.

    Raises:
        ValueError: an environment variable has an invalid value.
    """
    return max(params.batch_size // runtime_from().accumulation_steps, 1)


Objective = Callable[[nn.Module, Batch], Losses]
"""Losses of a model on a batch."""


def predicted(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The velocity a model predicts for a batch."""
    return model(noised(batch.clean, batch.noise, batch.t), batch.t, batch.conditions)


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
    """Train the network's adapter; returns the ends of the curves, and held-out scores before and after training."""
    runtime = runtime_from()

    def make_optimizer(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        adam = adamw(runtime, weights, params.learning_rate, params.weight_decay)
        if params.ema_decay:
            keep_average(adam, params.ema_decay)
        return adam

    engine = engine_for(network, runtime, make_optimizer, params.max_grad_norm)
    accelerator = engine.accelerator
    draws = params.draws(one_reference=one_reference)
    curve_ends = CurveEnds(on_step)
    before = held_out(network, data, draws)
    share = Share(accelerator.process_index, accelerator.num_processes, runtime.accumulation_steps)

    def drawn(positions: range) -> Batch:
        return batch_at(data, data.train, draws, positions, accelerator.device)

    def accumulate(batch: Batch) -> Losses:
        return engine.backward(objective(engine.model, batch))

    batches = StepBatches(drawn, share, params.num_steps, params.batch_size, curve_ends.latest)
    fit(engine, batches, accumulate, curve_ends, checkpoint)
    uncompile(network)
    if params.ema_decay:
        take_average(engine.optimizer)
    after = held_out(network, data, draws)
    return {
        "trained_parameters": sum(weight.numel() for weight in network.parameters() if weight.requires_grad),
        "curves": {name: dict(values) for name, values in curve_ends.means().items()},
        **{name: {"before": before[name], "after": after[name]} for name in before},
    }


def held_out(network: ReferenceFlux, data: EncodedSet, draws: Draws) -> dict[str, JSON]:
    """Scores on the validation samples, with the same noise at every call."""
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
    starts = range(0, len(data.val), draws.batch_size)

    def loss(number: int) -> float:
        positions = range(starts[number], starts[number] + draws.batch_size)
        batch = batch_at(data, data.val, with_text, positions, device)
        return float(flow_loss(predicted(network, batch), batch.clean, batch.noise))

    losses = shared_out(network, len(starts), loss)
    return sum(losses) / len(losses)


def reference_gain(network: ReferenceFlux, data: EncodedSet, draws: Draws, num: int) -> dict[str, JSON]:
    """How much worse faces are predicted with wrong references, which shows whether references are used at all.

    ``others`` are the references of another sample, ``swapped`` the right ones in another order. The gain is the flow
    loss on tokens of faces with these, minus that with the right ones: same text, same noise, positive if references
    help. Returned are its mean over ``num`` held-out samples and all noise levels, the standard error of that mean
    over samples, the means per range of noise levels, and under ``right`` the loss itself. Kinds without an example
    are left out.
    """
    alone = replace(draws, text_dropout=0.0, batch_size=1)

    def gains_of(position: int) -> dict[str, dict[str, float]]:
        by_kind: dict[str, dict[str, float]] = {}
        for name, t in NOISE_BINS.items():
            for kind, loss in _face_losses(network, data, alone, position, t).items():
                by_kind.setdefault(kind, {})[name] = loss
        right = by_kind.get("right", {})
        return {
            kind: {name: loss - (0.0 if kind == "right" else right[name]) for name, loss in by_level.items()}
            for kind, by_level in by_kind.items()
        }

    by_kind: dict[str, list[dict[str, float]]] = {}
    for gains in shared_out(network, num, gains_of):
        for kind, by_level in gains.items():
            by_kind.setdefault(kind, []).append(by_level)
    return {kind: _summary(samples) for kind, samples in by_kind.items()}


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
    references = {"right": sample.references}
    if len(data.val) > 1:
        others = draw(data, data.val, draws, following)[0].references
        references["others"] = others[torch.arange(num) % len(others)]
    if num > 1:
        references["swapped"] = sample.references.roll(1, 0)
    drawn = [(replace(sample, references=tokens), noise, level) for tokens in references.values()]
    batch = collate(drawn, next(network.parameters()).device)
    batch = replace(batch, t=torch.full_like(batch.t, t))
    errors = (predicted(network, batch) - (batch.noise - batch.clean)).square().mean(-1).cpu()
    return dict(zip(references, errors[:, inside].mean(-1).tolist(), strict=True))


def _summary(samples: list[dict[str, float]]) -> dict[str, JSON]:
    """Mean, standard error and means per range of noise levels, from the values per range of every sample."""
    table = torch.tensor([list(values.values()) for values in samples], dtype=torch.float64)
    error = float(table.mean(1).std() / len(samples) ** 0.5) if len(samples) > 1 else None
    by_range: dict[str, JSON] = dict(zip(NOISE_BINS, table.mean(0).tolist(), strict=True))
    return {"mean": float(table.mean()), "standard_error": error, "by_noise_level": by_range}
