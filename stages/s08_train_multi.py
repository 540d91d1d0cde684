"""Stage 8: training stage 2: experts and attention regularisation on several people per image."""

from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import save_file

from mcpipe.core.report import Report
from mcpipe.execution.fingerprint import fingerprint
from mcpipe.execution.store import progress_of
from mcpipe.flux.adapters import read_spec, start_adapter
from mcpipe.flux.backbone import load_generator
from mcpipe.train import multi
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.data import read_encoded
from mcpipe.train.loop.outputs import output_folder, save_gathered_adapter, training_log, with_encoder
from mcpipe.train.loop.previews import PreviewSampler
from mcpipe.train.loop.runtime import process_state


@dataclass(frozen=True)
class MultiTraining:
    """Everything that the result of this training depends on."""

    encode: Path
    train_single: Path
    generator: Path
    params: multi.TrainMultiParams


def run(encode: Path, train_single: Path, generator: Path, train_multi: Path, params: multi.TrainMultiParams) -> None:
    """Write the adapter that continues stage 1, its curves, attention maps before and after, and a report."""
    process_state()
    report = Report("train_multi", ("torch", "diffusers", "peft", "accelerate"))
    data = read_encoded(encode)
    spec = multi.multi_spec(read_spec(train_single), data, params)
    pipeline = load_generator(generator)
    data = with_encoder(data, pipeline)
    start_adapter(pipeline, train_single, spec, params.seed)
    network = multi.multi_network(pipeline, data, params)
    training = MultiTraining(encode, train_single, generator, params)
    checkpoint = Checkpoint(progress_of(train_multi) / fingerprint(training, report.packages))
    sampler = PreviewSampler(pipeline, network, data, params.shift, one_reference=False)
    with output_folder(train_multi) as folder:
        before = multi.held_out_maps(network, data, params.seed)
        with training_log(sampler, params.pictures_every, checkpoint, folder) as on_step:
            report.facts = multi.train_multi(network, data, params, on_step, checkpoint)
        after = multi.held_out_maps(network, data, params.seed)
        places = {key: place for place, key in enumerate(data.val.keys)}
        (folder / "attention").mkdir()
        for key in before:
            masks = data.val[places[key]].masks.unflatten(-1, before[key].shape[1:])
            arrays = {"before": before[key].numpy(), "after": after[key].numpy(), "masks": masks.numpy()}
            save_file(arrays, folder / "attention" / f"{key}.safetensors")
        save_gathered_adapter(pipeline, spec, folder)
        for key in data.train.keys:
            report.keep(key)
        report.write(folder)
    checkpoint.clear()
