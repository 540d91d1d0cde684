"""Stage 7: training stage 1: plain LoRA on one person per image."""

from dataclasses import dataclass
from pathlib import Path

from mcpipe.core.report import Report
from mcpipe.execution.fingerprint import fingerprint
from mcpipe.execution.store import progress_of
from mcpipe.train import single
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.data import read_encoded
from mcpipe.train.loop.outputs import output_folder, save_gathered_adapter, training_log, with_encoder
from mcpipe.train.loop.previews import PreviewSampler
from mcpipe.train.loop.runtime import load_base, place_base, process_state


@dataclass(frozen=True)
class SingleTraining:
    """Everything that the result of this training depends on."""

    encode: Path
    generator: Path
    params: single.TrainSingleParams
    start: Path | None


def run(encode: Path, generator: Path, train_single: Path, params: single.TrainSingleParams) -> None:
    """Write the adapter, its curves and a report; a second run of an interrupted training resumes it."""
    process_state()
    report = Report("train_single", ("torch", "diffusers", "peft", "accelerate"))
    data = read_encoded(encode)
    pipeline = load_base(generator)
    data = with_encoder(data, pipeline)
    start = Path(params.start) if params.start else None
    spec, network = single.single_network(pipeline, data, params, start)
    place_base(pipeline)
    training = SingleTraining(encode, generator, params, start)
    checkpoint = Checkpoint(progress_of(train_single) / fingerprint(training, report.packages))
    sampler = PreviewSampler(pipeline, network, data, params.shift, one_reference=True)
    with output_folder(train_single) as folder:
        with training_log(sampler, params.pictures_every, checkpoint, folder) as on_step:
            report.facts = single.train_single(network, data, params, on_step, checkpoint)
        save_gathered_adapter(pipeline, spec, folder)
        for key in data.train.keys:
            report.keep(key)
        report.write(folder)
    checkpoint.clear()
