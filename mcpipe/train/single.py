"""Training stage 1: one person per image (paper, section 4.1), plain LoRA, flow-matching loss only.

Departures from the paper: it pre-trains on internal single-subject data; here each target is a close-up cut from a
two-person sample, around one of its people, chosen at random, with everybody else painted white, that person's
reference and a caption of its own. The adapter is plain; stage 2 copies it into its experts.
"""

from pathlib import Path

from pydantic import Field
from torch import nn

from mcpipe.core.records import JSON
from mcpipe.flux.adapters import AdapterSpec, add_adapter
from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.starts import start_lora
from mcpipe.flux.tokens import Positions, layout
from mcpipe.objectives.flow import flow_loss
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.data import Batch, EncodedSet
from mcpipe.train.loop.fit import Losses, OnStep
from mcpipe.train.supervised import SupervisedParams, predicted, train


class TrainSingleParams(SupervisedParams):
    """Settings of stage 1."""

    rank: int = Field(ge=1)
    """Rank of every LoRA."""
    positions: Positions
    """Position ids that distinguish references, here and in every later stage."""
    start: str | None
    """LoRA file of any layout that `mcpipe.flux.lora_files` knows, of this rank or a smaller one; null for none."""


def single_network(
    pipeline: FluxPipeline, data: EncodedSet, params: TrainSingleParams, start: Path | None
) -> tuple[AdapterSpec, ReferenceFlux]:
    """Add an adapter to the pipeline's transformer; returns its specification and the network with references.

    Raises:
        FileNotFoundError: the file ``start`` does not exist.
        ValueError: it is damaged or does not fit the generator or the rank.
    """
    spec = AdapterSpec(
        rank=params.rank,
        experts=None,
        image_size=data.image_size,
        reference_size=data.reference_size,
        positions=params.positions,
        shift=params.shift,
    )
    if start is None:
        add_adapter(pipeline.transformer, spec, params.seed)
    else:
        start_lora(pipeline, start, spec, params.seed)
    grids = layout(pipeline, data.image_size, data.reference_size)
    return spec, ReferenceFlux(pipeline.transformer, grids, params.guidance)


def train_single(
    network: ReferenceFlux, data: EncodedSet, params: TrainSingleParams, on_step: OnStep, checkpoint: Checkpoint
) -> dict[str, JSON]:
    """Train the network's adapter; returns facts about the training."""
    return train(network, data, params, objective, one_reference=True, on_step=on_step, checkpoint=checkpoint)


def objective(model: nn.Module, batch: Batch) -> Losses:
    """The flow-matching loss."""
    return Losses({"flow": flow_loss(predicted(model, batch), batch.clean, batch.noise)})
