"""Stage 7: training stage 1: plain LoRA on one person per picture."""

from pathlib import Path

from mcpipe.flux.adapters import save_adapter
from mcpipe.flux.backbone import load_generator
from mcpipe.report import Report
from mcpipe.shards import whole_folder
from mcpipe.train import single
from mcpipe.train.batches import read_encoded
from mcpipe.train.curves import curves


def run(encode: Path, generator: Path, train_single: Path, params: single.TrainSingleParams) -> None:
    """Write the adapter, its curves and a report."""
    report = Report("train_single", ("torch", "diffusers", "peft", "accelerate"))
    data = read_encoded(encode)
    pipeline = load_generator(generator)
    with whole_folder(train_single) as folder:
        with curves(folder / "live") as on_step:
            spec, report.facts = single.train_single(pipeline, data, params, on_step)
        save_adapter(pipeline.transformer, spec, folder)
        for sample in data.train:
            report.keep(sample.key)
        report.write(folder)
