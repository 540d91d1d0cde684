"""What stages 1 and 2 share: flow matching on encoded samples, with AdamW at a constant rate."""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from accelerate import Accelerator
from pydantic import Field
from torch import nn

from mcpipe.flux.network import ReferenceFlux
from mcpipe.objectives.flow import flow_loss, noised
from mcpipe.params import Params
from mcpipe.progress import track
from mcpipe.records import JSON
from mcpipe.train.batches import Batch, Draws, EncodedSet, batches
from mcpipe.train.checkpoint import Checkpoint
from mcpipe.train.curves import Ends
from mcpipe.train.fit import Engine, Losses, OnStep, fit


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


Objective = Callable[[nn.Module, Batch], Losses]


def predicted(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The velocity a model predicts for a batch."""
    return model(noised(batch.clean, batch.noise, batch.t), batch.t, batch.conditions)


class Steps:
    """So many steps over the training samples."""

    def __init__(self, data: EncodedSet, draws: Draws, num_steps: int, device: torch.device) -> None:
        self._data, self._draws, self._num_steps, self._device = data, draws, num_steps, device
        self._taken = 0

    def batches(self) -> Iterator[Batch]:
        """The batches of the steps that are left."""
        steps = range(self._taken, self._num_steps)
        for batch in track(
            batches(self._data, self._data.train, self._draws, steps, self._device), len(steps), "training steps"
        ):
            self._taken += 1
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
    accelerator = Accelerator()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=params.learning_rate, weight_decay=params.weight_decay)
    model, optimizer = accelerator.prepare(network, optimizer)
    draws = Draws(params.seed, params.batch_size, params.shift, params.text_dropout, one_reference)
    ends = Ends(on_step)
    before = held_out_flow(network, data, draws)
    engine = Engine(accelerator, model, optimizer, params.max_grad_norm)
    course = Steps(data, draws, params.num_steps, accelerator.device)
    fit(engine, course, lambda batch: objective(model, batch), ends, checkpoint)
    return {
        "trained_parameters": sum(parameter.numel() for parameter in parameters),
        "curves": {name: dict(values) for name, values in ends.means().items()},
        "held_out_flow": {"before": before, "after": held_out_flow(network, data, draws)},
    }


@torch.no_grad()
def held_out_flow(network: ReferenceFlux, data: EncodedSet, draws: Draws) -> float | None:
    """Flow loss on the validation samples, with the same noise at every call; ``None`` if there are no such samples."""
    if not data.val:
        return None
    with_text = Draws(draws.seed, draws.batch_size, draws.shift, 0.0, draws.one_reference)
    device = next(network.parameters()).device
    stream = batches(data, data.val, with_text, range(math.ceil(len(data.val) / draws.batch_size)), device)
    losses = [float(flow_loss(predicted(network, batch), batch.clean, batch.noise)) for batch in stream]
    return sum(losses) / len(losses)
