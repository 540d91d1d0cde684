"""Stage 10: training stage 3: reinforcement by judges of text, looks and identity."""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from mcpipe.core.report import Report
from mcpipe.core.schemas.benchmark import PairPrompt, PoolFace
from mcpipe.core.shards import read_shards
from mcpipe.execution.fingerprint import fingerprint
from mcpipe.execution.store import progress_of
from mcpipe.flux.adapters import AdapterSpec, load_adapter
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.tokens import layout
from mcpipe.models.faces import InsightFaces
from mcpipe.models.protocols import FaceAnalyser, Picture
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.curves import curves
from mcpipe.train.loop.outputs import output, save_whole_adapter
from mcpipe.train.loop.runtime import is_main, join
from mcpipe.train.rl import trainer as rl
from mcpipe.train.rl.learner import Learner, Row
from mcpipe.train.rl.params import TrainRLParams
from mcpipe.train.rl.rewards import FaceJudge, Judges, Prompt

ROWS, PICTURES = "rewards.jsonl", "pictures"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """What decides how this training ends."""

    pairs: Path
    train_multi: Path
    generator: Path
    faces: Path
    faces_heldout: Path
    clip: Path
    hps: Path
    params: TrainRLParams


@dataclass(frozen=True)
class Diary:
    """Files by iteration, kept beside the checkpoint until the training ends."""

    folder: Path

    def rows(self, iteration: int, rows: Sequence[Row]) -> None:
        """Keep the unweighted scores of every picture of an iteration."""
        if is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (self.folder / f"{iteration:06d}.jsonl").write_text(lines)

    def pictures(self, iteration: int, pictures: UInt8[np.ndarray, "prompts S S 3"]) -> None:
        """Keep pictures of the watched prompts, side by side."""
        self.folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(list(pictures), axis=1)).save(self.folder / f"{iteration:06d}.png")

    def put_into(self, out: Path) -> None:
        """Write all scores into one file, and pictures by iteration and in one grid, a row per iteration."""
        (out / ROWS).write_text("".join(file.read_text() for file in sorted(self.folder.glob("*.jsonl"))))
        drawn = sorted(self.folder.glob("*.png"))
        if drawn:
            (out / PICTURES).mkdir()
            grid = np.concatenate([np.asarray(Image.open(file)) for file in drawn])
            Image.fromarray(grid).save(out / PICTURES / "grid.png")
            for file in drawn:
                shutil.copy(file, out / PICTURES / file.name)


def run(  # noqa: PLR0913  a path for every dependency
    pairs: Path, train_multi: Path, generator: Path, faces: Path, faces_heldout: Path, clip: Path, hps: Path,
    train_rl: Path, params: TrainRLParams,
) -> None:  # fmt: skip
    """Write the adapter that went on from stage 2, its curves, every picture's scores, drawings and a report."""
    join()
    report = Report("train_rl", ("torch", "diffusers", "peft", "accelerate", "insightface", "open_clip_torch"))
    recogniser, heldout = (
        InsightFaces(pack, params.faces.min_score, params.faces.detection_size) for pack in (faces, faces_heldout)
    )
    judges = Judges(FaceJudge(recogniser), Clip(clip), HpsV2_1(hps), FaceJudge(heldout))
    pipeline = load_generator(generator)
    spec = load_adapter(pipeline, train_multi)
    grids = layout(pipeline, spec.image_size, spec.reference_size)
    network = ReferenceFlux(pipeline.transformer, grids, params.sampling.guidance)
    prompts = read_prompts(pairs, spec, heldout)
    learner = Learner(pipeline, network, judges, params, report)
    training = Training(pairs, train_multi, generator, faces, faces_heldout, clip, hps, params)
    checkpoint = Checkpoint(progress_of(train_rl) / fingerprint(training, report.packages))
    diary = Diary(checkpoint.folder / "diary")
    with output(train_rl) as folder:
        with curves(folder / "live") as on_step:
            report.facts = rl.train_rl(learner, prompts, on_step, checkpoint, diary)
        save_whole_adapter(pipeline, spec, folder)
        if is_main():
            diary.put_into(folder)
        report.write(folder)
    checkpoint.clear()


def read_prompts(pairs: Path, spec: AdapterSpec, heldout: FaceAnalyser) -> list[Prompt]:
    """The prompts set aside for reinforcement, with their people.

    Raises:
        ValueError: there are none, or their faces have another size than the adapter was trained for.
    """
    faces = {face.key: face for face in read_shards(pairs / "faces", PoolFace)}
    watched = {key: face_embedding(heldout, face.closeup, key) for key, face in faces.items()}
    prompts = []
    for stored in read_shards(pairs / "rl", PairPrompt):
        pictures = np.stack([faces[key].reference for key in stored.faces])
        if pictures.shape[1:3] != (spec.reference_size, spec.reference_size):
            raise ValueError(
                f"the faces of {pairs} measure {pictures.shape[2]}x{pictures.shape[1]} px, but the adapter was trained "
                f"with references of {spec.reference_size} px; train it again, or set samples.reference_size to that"
            )
        embeddings = np.stack([faces[key].embedding for key in stored.faces])
        unseen = np.stack([watched[key] for key in stored.faces])
        prompts.append(Prompt(stored.key, stored.prompt, pictures, embeddings, unseen))
    if not prompts:
        raise ValueError(f"no prompts in {pairs / 'rl'}; see the report of the stage pairs")
    return prompts


def face_embedding(heldout: FaceAnalyser, picture: Picture, key: str) -> Float[np.ndarray, " D"]:
    """Who the held-out recogniser sees in a portrait; zeros, which resemble nobody, if it sees no face."""
    found = heldout.faces(picture).embeddings
    if len(found):
        return found[0]
    logger.warning("the held-out recogniser sees no face in %s; it counts as never found", key)
    return np.zeros(found.shape[1], np.float32)
