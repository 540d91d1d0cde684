"""Stage 10: training stage 3: reinforcement learning from text, preference and identity rewards."""

from functools import partial
from pathlib import Path

from mcpipe.models.faces import InsightFaces
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.train.rl.params import TrainRLParams
from mcpipe.train.rl.prompts import read_prompts
from mcpipe.train.rl.rewards import FaceScorer, Scorers
from mcpipe.train.rl.stage import ReadPrompts, RLTraining, write_rl


def run(  # noqa: PLR0913  a path for every dependency
    pairs: Path, train_multi: Path, generator: Path, faces: Path, faces_heldout: Path, reward_clip: Path,
    reward_hps: Path, train_rl: Path, params: TrainRLParams,
) -> None:  # fmt: skip
    """Write the adapter that continues stage 2, its curves, the scores of every image, previews and a report."""
    models = {"faces": faces, "faces_heldout": faces_heldout, "reward_clip": reward_clip, "reward_hps": reward_hps}
    write_rl(RLTraining(pairs, train_multi, generator, models, scorers_of_people, params), train_rl)


def scorers_of_people(training: RLTraining) -> tuple[Scorers, ReadPrompts]:
    """The rewards of people: faces are compared by recognition."""
    params, models = training.params, training.models
    recogniser, heldout = (
        InsightFaces(models[name], params.min_face_score, params.detection_size) for name in ("faces", "faces_heldout")
    )
    clip, hps = Clip(models["reward_clip"]), HpsV2_1(models["reward_hps"])
    scorers = Scorers(FaceScorer(recogniser), clip, hps, FaceScorer(heldout))
    return scorers, partial(read_prompts, training.pairs, heldout=heldout)
