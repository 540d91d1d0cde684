"""Training stage 1: one person per image (paper, section 4.1), plain LoRA, flow-matching loss only.

Departures from the paper: it pre-trains on internal single-subject data; here each target is a close-up cut from a
two-person sample, around one of its people, chosen at random, with everybody else painted white, that person's
reference and a caption of its own. The adapter is plain; stage 2 copies it into its experts.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field
from torch import nn

from mcpipe.core.records import JSON
from mcpipe.core.report import Report
from mcpipe.execution.fingerprint import fingerprint
from mcpipe.execution.store import progress_of
from mcpipe.flux.adapters import AdapterSpec, add_adapter
from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.starts import start_lora
from mcpipe.flux.tokens import Positions, layout
from mcpipe.objectives.flow import flow_loss
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.data import Batch, EncodedSet, read_encoded
from mcpipe.train.loop.fit import Losses, OnStep
from mcpipe.train.loop.launch import together
from mcpipe.train.loop.outputs import output_folder, save_gathered_adapter, training_log, with_encoder
from mcpipe.train.loop.previews import PreviewSampler
from mcpipe.train.loop.runtime import load_base, place_base, process_state
from mcpipe.train.supervised import SupervisedParams, parts_of, predicted, train


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


@dataclass(frozen=True)
class SingleTraining:
    """Everything that the result of this training depends on."""

    encode: Path
    generator: Path
    params: TrainSingleParams
    start: Path | None


def write_single(encode: Path, generator: Path, out: Path, params: TrainSingleParams) -> None:
    """Write the adapter, its curves and a report; a second run of an interrupted training resumes it."""
    together(params.processes, parts_of(params), _write_single, encode, generator, out, params)


def _write_single(encode: Path, generator: Path, out: Path, params: TrainSingleParams) -> None:
    """One process's part in it."""
    process_state()
    report = Report("train_single", ("torch", "diffusers", "peft", "accelerate"))
    data = read_encoded(encode)
    pipeline = load_base(generator)
    data = with_encoder(data, pipeline)
    start = Path(params.start) if params.start else None
    spec, network = single_network(pipeline, data, params, start)
    place_base(pipeline)
    training = SingleTraining(encode, generator, params, start)
    checkpoint = Checkpoint(progress_of(out) / fingerprint(training, report.packages))
    sampler = PreviewSampler(pipeline, network, data, params.shift, one_reference=True)
    with output_folder(out) as folder:
        with training_log(sampler, params.pictures_every, checkpoint, folder) as on_step:
            report.facts = train_single(network, data, params, on_step, checkpoint)
        save_gathered_adapter(pipeline, spec, folder)
        for key in data.train.keys:
            report.keep(key)
        report.write(folder)
    checkpoint.clear()
