"""Stage 7: training stage 1: plain LoRA on one person per picture."""

from dataclasses import dataclass
from pathlib import Path

from mcpipe.fingerprint import fingerprint
from mcpipe.flux.adapters import save_adapter
from mcpipe.flux.backbone import load_generator
from mcpipe.report import Report
from mcpipe.shards import whole_folder
from mcpipe.store import progress_of
from mcpipe.train import single
from mcpipe.train.batches import read_encoded
from mcpipe.train.checkpoint import Checkpoint
from mcpipe.train.curves import curves


@dataclass(frozen=True)
class Training:
    """What decides how this training ends."""

    encode: Path
    generator: Path
    params: single.TrainSingleParams


def run(encode: Path, generator: Path, train_single: Path, params: single.TrainSingleParams) -> None:
    """Write the adapter, its curves and a report; interrupted, a second run goes on where the first one stood."""
    report = Report("train_single", ("torch", "diffusers", "peft", "accelerate"))
    data = read_encoded(encode)
    pipeline = load_generator(generator)
    training = Training(encode, generator, params)
    checkpoint = Checkpoint(progress_of(train_single) / fingerprint(training, report.packages))
    with whole_folder(train_single) as folder:
        with curves(folder / "live") as on_step:
            spec, report.facts = single.train_single(pipeline, data, params, on_step, checkpoint)
        save_adapter(pipeline.transformer, spec, folder)
        for sample in data.train:
            report.keep(sample.key)
        report.write(folder)
    checkpoint.clear()
