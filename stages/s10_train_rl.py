"""Stage 10: training stage 3: reinforcement learning from text, preference and identity rewards."""

from dataclasses import dataclass
from pathlib import Path

from mcpipe.core.records import JSON
from mcpipe.flux.adapters import AdapterSpec
from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.faces import InsightFaces
from mcpipe.models.grounders import load_grounder
from mcpipe.models.protocols import FaceAnalyser
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.dino import Dino
from mcpipe.models.scorers.judge import Judge
from mcpipe.models.scorers.preferences import load_preference
from mcpipe.train.rl.params import PsrParams, TrainRLParams
from mcpipe.train.rl.prompts import named_prompts, read_prompts
from mcpipe.train.rl.rewards import FaceScorer, PairwiseScorer, Prompt, Scorers
from mcpipe.train.rl.stage import ReadPrompts, RLTraining, write_rl


def run(  # noqa: PLR0913  a path for every dependency
    pairs: Path, train_multi: Path, generator: Path, faces: Path, faces_heldout: Path, reward_clip: Path,
    reward_hps: Path, train_rl: Path, params: TrainRLParams,
) -> None:  # fmt: skip
    """Write the adapter that continues stage 2, its curves, the scores of every image, previews and a report."""
    models = {"faces": faces, "faces_heldout": faces_heldout, "reward_clip": reward_clip, "reward_hps": reward_hps}
    models |= psr_models(params.psr)
    write_rl(RLTraining(pairs, train_multi, generator, models, scorers_of_people, params), train_rl)


def psr_models(params: PsrParams) -> dict[str, Path]:
    """Folders of the models that are set."""
    folders = {
        "grounder": params.grounder,
        "encoder": params.encoder,
        "judge": params.judge,
        "preference": params.preference,
    }
    return {name: Path(folder) for name, folder in folders.items() if folder is not None}


def scorers_of_people(training: RLTraining) -> tuple[Scorers, ReadPrompts]:
    """The rewards of people: faces are compared by recognition, or by what PSR's settings ask for.

    Raises:
        FileNotFoundError: a checkpoint is missing.
        ValueError: a checkpoint is damaged.
    """
    params, models = training.params, training.models
    recogniser, heldout = (
        InsightFaces(models[name], params.min_face_score, params.detection_size) for name in ("faces", "faces_heldout")
    )
    pairwise, judge = psr_scorers(params, models)
    clip, preference = Clip(models["reward_clip"]), load_preference(models.get("preference", models["reward_hps"]))
    scorers = Scorers(pairwise or FaceScorer(recogniser), clip, preference, FaceScorer(heldout), judge)
    return scorers, PeoplePrompts(training.pairs, heldout, pairwise, params.psr.phrase)


def psr_scorers(params: TrainRLParams, models: dict[str, Path]) -> tuple[PairwiseScorer | None, Judge | None]:
    """The scorers of PSR that the settings ask for.

    Raises:
        FileNotFoundError: a checkpoint is missing.
        ValueError: a checkpoint is damaged.
    """
    psr, pairwise, judge = params.psr, None, None
    if params.rewards.matching == "by_name":
        pairwise = PairwiseScorer(load_grounder(models["grounder"], psr.box_threshold), Dino(models["encoder"]))
    if params.rewards.semantic:
        judge = Judge(Qwen2_5VL(models["judge"]), psr.temperature, psr.max_tokens, psr.attempts, psr.seed)
    return pairwise, judge


@dataclass(frozen=True)
class PeoplePrompts:
    """Reads the prompts of the stage ``pairs``."""

    pairs: Path
    heldout: FaceAnalyser
    pairwise: PairwiseScorer | None
    phrase: str
    """Attribute of the pool's faces by which ``pairwise`` locates them."""

    def __call__(self, spec: AdapterSpec) -> tuple[list[Prompt], dict[str, JSON]]:
        """The prompts for an adapter, and facts about them."""
        prompts = read_prompts(self.pairs, spec, self.heldout)
        if self.pairwise is None:
            return prompts, {}
        named = named_prompts(self.pairs, prompts, self.pairwise, self.phrase)
        return named.prompts, {"references_not_located": [*named.not_located]}
