"""Stage 10: training stage 3: reinforcement by judges of text, looks and identity."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcpipe.fingerprint import fingerprint
from mcpipe.flux.adapters import AdapterSpec, load_adapter, save_adapter
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.network import ReferenceFlux
from mcpipe.flux.tokens import layout
from mcpipe.models.clip import Clip
from mcpipe.models.faces import InsightFaces
from mcpipe.models.hps import HpsV2_1
from mcpipe.report import Report
from mcpipe.shards import read_shards, whole_folder
from mcpipe.store import progress_of
from mcpipe.train import rl
from mcpipe.train.checkpoint import Checkpoint
from mcpipe.train.curves import curves
from mcpipe.train.rewards import Judges


@dataclass(frozen=True)
class Training:
    """What decides how this training ends."""

    pairs: Path
    train_multi: Path
    generator: Path
    faces: Path
    clip: Path
    hps: Path
    params: rl.TrainRLParams


def run(  # noqa: PLR0913  a path for every dependency
    pairs: Path, train_multi: Path, generator: Path, faces: Path, clip: Path, hps: Path, train_rl: Path,
    params: rl.TrainRLParams,
) -> None:  # fmt: skip
    """Write the adapter that went on from stage 2, its curves and a report."""
    report = Report("train_rl", ("torch", "diffusers", "peft", "accelerate", "insightface", "open_clip_torch"))
    judges = Judges(InsightFaces(faces, params.faces.min_score, params.faces.detection_size), Clip(clip), HpsV2_1(hps))
    pipeline = load_generator(generator)
    spec = load_adapter(pipeline, train_multi)
    grids = layout(pipeline, spec.image_size, spec.reference_size)
    network = ReferenceFlux(pipeline.transformer, grids, params.sampling.guidance)
    learner = rl.Learner(pipeline, network, judges, params, report)
    training = Training(pairs, train_multi, generator, faces, clip, hps, params)
    checkpoint = Checkpoint(progress_of(train_rl) / fingerprint(training, report.packages))
    with whole_folder(train_rl) as folder:
        with curves(folder / "live") as on_step:
            report.facts = rl.train_rl(learner, read_prompts(pairs, spec), on_step, checkpoint)
        save_adapter(pipeline.transformer, spec, folder)
        report.write(folder)
    checkpoint.clear()


def read_prompts(pairs: Path, spec: AdapterSpec) -> list[rl.Prompt]:
    """The prompts set aside for reinforcement, with their people.

    Raises:
        ValueError: there are none, or their faces have another size than the adapter was trained for.
    """
    faces = {record.key: record for record in read_shards(pairs / "faces")}
    prompts = []
    for record in read_shards(pairs / "rl"):
        people = [faces[key] for key in record.texts("faces")]
        pictures = np.stack([person.arrays["reference"] for person in people])
        if pictures.shape[1:3] != (spec.reference_size, spec.reference_size):
            raise ValueError(
                f"the faces of {pairs} measure {pictures.shape[2]}x{pictures.shape[1]} px, but the adapter was trained "
                f"with references of {spec.reference_size} px; set reference_size of pairs and samples alike"
            )
        embeddings = np.stack([person.arrays["embedding"] for person in people])
        prompts.append(rl.Prompt(record.key, record.text("prompt"), pictures, embeddings))
    if not prompts:
        raise ValueError(f"no prompts in {pairs / 'rl'}; see the report of the stage pairs")
    return prompts
