"""Stage 10: training stage 3: reinforcement learning from text, preference and identity rewards."""

from dataclasses import dataclass
from pathlib import Path

from mcpipe.core.records import JSON
from mcpipe.core.report import Report
from mcpipe.execution.fingerprint import fingerprint
from mcpipe.execution.store import progress_of
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.tokens import layout
from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.faces import InsightFaces
from mcpipe.models.grounding import GroundingDino
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.dino import Dino
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.models.scorers.judge import Judge
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.curves import curves
from mcpipe.train.loop.outputs import output_folder
from mcpipe.train.loop.runtime import is_main, process_state
from mcpipe.train.rl import trainer as rl
from mcpipe.train.rl.adapter import save_policy, start_policy
from mcpipe.train.rl.learner import Learner
from mcpipe.train.rl.params import PsrParams, TrainRLParams
from mcpipe.train.rl.prompts import named_prompts, read_prompts
from mcpipe.train.rl.rewards import FaceScorer, PairwiseScorer, Scorers
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
    psr: dict[str, Path]
    """Models of `PsrParams` by name."""


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
    pairwise, judge = psr_scorers(params)
    identity = pairwise or FaceScorer(recogniser)
    scorers = Scorers(identity, Clip(reward_clip), HpsV2_1(reward_hps), FaceScorer(heldout), judge)
    pipeline = load_generator(generator)
    spec = start_policy(pipeline, train_multi, params)
    grids = layout(pipeline, spec.image_size, spec.reference_size)
    network = ReferenceFlux(pipeline.transformer, grids, params.guidance)
    prompts = read_prompts(pairs, spec, heldout)
    psr_facts: dict[str, JSON] = {}
    if pairwise is not None:
        named = named_prompts(pairs, prompts, pairwise, params.psr.phrase)
        prompts, psr_facts = named.prompts, {"references_not_located": [*named.not_located]}
    learner = Learner(pipeline, network, scorers, params, report)
    training = RLTraining(
        pairs, train_multi, generator, faces, faces_heldout, reward_clip, reward_hps, params, psr_models(params.psr)
    )
    checkpoint = Checkpoint(progress_of(train_rl) / fingerprint(training, report.packages))
    log = RolloutLog(checkpoint.folder / "rollouts")
    with output_folder(train_rl) as folder:
        with curves(folder / "live") as on_step:
            report.facts = rl.train_rl(learner, prompts, on_step, checkpoint, log) | psr_facts
        save_policy(pipeline, spec, params, folder)
        if is_main():
            log.export(folder)
        report.write(folder)
    checkpoint.clear()


def psr_models(params: PsrParams) -> dict[str, Path]:
    """Folders of the models that are set."""
    folders = {"grounder": params.grounder, "encoder": params.encoder, "judge": params.judge}
    return {name: Path(folder) for name, folder in folders.items() if folder is not None}


def psr_scorers(params: TrainRLParams) -> tuple[PairwiseScorer | None, Judge | None]:
    """The scorers of PSR that the settings ask for.

    Raises:
        FileNotFoundError: a checkpoint is missing.
        ValueError: a checkpoint is damaged.
    """
    psr, models = params.psr, psr_models(params.psr)
    pairwise = judge = None
    if params.rewards.matching == "by_name":
        pairwise = PairwiseScorer(GroundingDino(models["grounder"], psr.box_threshold), Dino(models["encoder"]))
    if params.rewards.semantic:
        judge = Judge(Qwen2_5VL(models["judge"]), psr.temperature, psr.max_tokens, psr.attempts, psr.seed)
    return pairwise, judge
