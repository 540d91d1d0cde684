"""One arm from one seed; the output's name says which, such as ``focus_dpo-0``."""

import typing
from dataclasses import dataclass
from pathlib import Path

from mcpipe.core.report import Report
from mcpipe.execution.fingerprint import fingerprint
from mcpipe.execution.store import progress_of
from mcpipe.flux.added_lora import combined_spec, save_combined
from mcpipe.flux.backbone import load_generator
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.curves import curves
from mcpipe.train.loop.outputs import output_folder
from mcpipe.train.loop.runtime import is_main, process_state, trained_weights
from mcpipe.train.preference.data import read_pairs
from mcpipe.train.preference.params import Arm, PreferenceParams
from mcpipe.train.preference.trainer import preference_network, train_preference


@dataclass(frozen=True)
class Training:
    """Everything that the result of this training depends on."""

    arm: str
    seed: int
    encoded: Path
    start: Path
    generator: Path
    params: PreferenceParams


def run(encoded: Path, start: Path, generator: Path, model: Path, params: PreferenceParams) -> None:
    """Write the adapter, its curves and a report; a second run of an interrupted training resumes it.

    Raises:
        ValueError: the output's name is no arm and seed.
    """
    process_state()
    arm, seed = arm_and_seed(model.name)
    report = Report("train", ("torch", "diffusers", "peft", "accelerate"))
    pairs = read_pairs(encoded)
    pipeline = load_generator(generator)
    spec, network = preference_network(pipeline, start, pairs, params, seed)
    training = Training(arm, seed, encoded, start, generator, params)
    checkpoint = Checkpoint(progress_of(model) / fingerprint(training, report.packages))
    with output_folder(model) as folder:
        with curves(folder / "live") as on_step:
            report.facts = train_preference(network, pairs, arm, seed, params, on_step, checkpoint)
        weights = trained_weights(pipeline.transformer)
        if is_main():
            save_combined(pipeline.transformer, combined_spec(spec, params.rank), folder, weights)
        for key in pairs.keys:
            report.keep(key)
        report.write(folder)
    checkpoint.clear()


def arm_and_seed(name: str) -> tuple[Arm, int]:
    """The arm and the seed in the name of an output.

    Raises:
        ValueError: it names none.
    """
    arm, _, seed = name.rpartition("-")
    for known in typing.get_args(Arm):
        if known == arm and seed.isdecimal():
            return known, int(seed)
    raise ValueError(f"an output should be called ARM-SEED with ARM one of {', '.join(typing.get_args(Arm))}: {name}")
