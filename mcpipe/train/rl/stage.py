"""Training stage 3 as a stage, for any kind of subjects: rewards and prompts are given."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mcpipe.core.records import JSON
from mcpipe.core.report import Report
from mcpipe.execution.fingerprint import fingerprint
from mcpipe.execution.store import progress_of
from mcpipe.flux.adapters import AdapterSpec
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.tokens import layout
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.curves import curves
from mcpipe.train.loop.launch import together
from mcpipe.train.loop.outputs import output_folder
from mcpipe.train.loop.runtime import is_main, process_state
from mcpipe.train.rl.adapter import save_policy, start_policy
from mcpipe.train.rl.learner import Learner
from mcpipe.train.rl.params import TrainRLParams
from mcpipe.train.rl.rewards import Prompt, Scorers
from mcpipe.train.rl.rollout_log import RolloutLog
from mcpipe.train.rl.trainer import train_rl

PACKAGES = ("torch", "diffusers", "peft", "accelerate", "insightface", "open_clip_torch")
"""Those whose version a result depends on."""
ReadPrompts = Callable[[AdapterSpec], tuple[list[Prompt], dict[str, JSON]]]
"""The prompts for an adapter, with their references embedded, and facts about them."""


@dataclass(frozen=True)
class RLTraining:
    """Everything that the result of this training depends on."""

    pairs: Path
    train_multi: Path
    generator: Path
    models: dict[str, Path]
    """The models that reward and watch, by name."""
    load: "Callable[[RLTraining], tuple[Scorers, ReadPrompts]]"
    """Loads the models; a named function of a module."""
    params: TrainRLParams


def write_rl(training: RLTraining, out: Path) -> None:
    """Write the adapter that continues stage 2, its curves, the scores of every image, previews and a report."""
    together(training.params.processes, training.params.prompts_per_iteration, _write_rl, training, out)


def _write_rl(training: RLTraining, out: Path) -> None:
    """One process's part in it."""
    process_state()
    params = training.params
    report = Report("train_rl", PACKAGES)
    scorers, read_prompts = training.load(training)
    pipeline = load_generator(training.generator)
    spec = start_policy(pipeline, training.train_multi, params)
    grids = layout(pipeline, spec.image_size, spec.reference_size)
    network = ReferenceFlux(pipeline.transformer, grids, params.guidance)
    prompts, facts = read_prompts(spec)
    learner = Learner(pipeline, network, scorers, params, report)
    checkpoint = Checkpoint(progress_of(out) / fingerprint(training, report.packages))
    log = RolloutLog(checkpoint.folder / "rollouts")
    with output_folder(out) as folder:
        with curves(folder / "live") as on_step:
            report.facts = train_rl(learner, prompts, on_step, checkpoint, log) | facts
        save_policy(pipeline, spec, params, folder)
        if is_main():
            log.export(folder)
        report.write(folder)
    checkpoint.clear()
