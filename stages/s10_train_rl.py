"""Stage 10: training stage 3: reinforcement learning from text, preference and identity rewards."""

from dataclasses import dataclass
from pathlib import Path

from mcpipe.core.report import Report
from mcpipe.execution.fingerprint import fingerprint
from mcpipe.execution.store import progress_of
from mcpipe.flux.adapters import load_adapter
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.tokens import layout
from mcpipe.models.faces import InsightFaces
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.curves import curves
from mcpipe.train.loop.outputs import output_folder, save_gathered_adapter
from mcpipe.train.loop.runtime import is_main, process_state
from mcpipe.train.rl import trainer as rl
from mcpipe.train.rl.learner import Learner
from mcpipe.train.rl.params import TrainRLParams
from mcpipe.train.rl.prompts import read_prompts
from mcpipe.train.rl.rewards import FaceScorer, Scorers
from mcpipe.train.rl.rollout_log import RolloutLog


@dataclass(frozen=True)
class RLTraining:
    """Everything that the result of this training depends on."""

    pairs: Path
    train_multi: Path
    generator: Path
    faces: Path
    faces_heldout: Path
    reward_clip: Path
    reward_hps: Path
    params: TrainRLParams


def run(  # noqa: PLR0913  a path for every dependency
    pairs: Path, train_multi: Path, generator: Path, faces: Path, faces_heldout: Path, reward_clip: Path,
    reward_hps: Path, train_rl: Path, params: TrainRLParams,
) -> None:  # fmt: skip
    """Write the adapter that continues stage 2, its curves, the scores of every image, previews and a report."""
    process_state()
    report = Report("train_rl", ("torch", "diffusers", "peft", "accelerate", "insightface", "open_clip_torch"))
    recogniser, heldout = (
        InsightFaces(pack, params.min_face_score, params.detection_size) for pack in (faces, faces_heldout)
    )
    scorers = Scorers(FaceScorer(recogniser), Clip(reward_clip), HpsV2_1(reward_hps), FaceScorer(heldout))
    pipeline = load_generator(generator)
    spec = load_adapter(pipeline, train_multi)
    grids = layout(pipeline, spec.image_size, spec.reference_size)
    network = ReferenceFlux(pipeline.transformer, grids, params.guidance)
    prompts = read_prompts(pairs, spec, heldout)
    learner = Learner(pipeline, network, scorers, params, report)
    training = RLTraining(pairs, train_multi, generator, faces, faces_heldout, reward_clip, reward_hps, params)
    checkpoint = Checkpoint(progress_of(train_rl) / fingerprint(training, report.packages))
    log = RolloutLog(checkpoint.folder / "rollouts")
    with output_folder(train_rl) as folder:
        with curves(folder / "live") as on_step:
            report.facts = rl.train_rl(learner, prompts, on_step, checkpoint, log)
        save_gathered_adapter(pipeline, spec, folder)
        if is_main():
            log.export(folder)
        report.write(folder)
    checkpoint.clear()
