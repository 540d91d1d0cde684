"""The masked-attention oracle: images of finished arms drawn once more, as rows of a study beside them.

An arm's images are the first of two passes. The faces that the recogniser locates in an image, each assigned to a
person as for Face-Sim, are its layout. The second pass draws from the same text, noise and references, and the tokens
of a head may attend to the reference of its person alone, as in the gate ``oracle`` of `zoo.scores.gates`. Other
people's references, of which the identity lift is made, are drawn with the same layout.

The layout is what the model drew, and the recogniser that scores has read it, which favours the second pass: it shows
what attention in the right place can add to these images and is no method.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int

from mcpipe.bench.controls import CONTROLS, TARGETS, control_faces
from mcpipe.bench.metrics import located_boxes, pairing
from mcpipe.core.params import params_of, parse_yaml
from mcpipe.core.progress import track
from mcpipe.core.rounding import cosines
from mcpipe.core.schemas.benchmark import GeneratedImage, PairPrompt, PoolFace
from mcpipe.core.shards import read_shards, write_shards
from mcpipe.curate.samples import FACE_MARGIN
from mcpipe.flux.adapters import load_adapter, merge_plain
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.encoders import decode_latents
from mcpipe.flux.sampler import batches, latents
from mcpipe.flux.tokens import Grid
from mcpipe.models.faces import InsightFaces
from mcpipe.models.protocols import FaceAnalyser
from mcpipe.steps.evaluate import MODELS, REWARD_MODELS, EvaluateParams, write_scores
from mcpipe.steps.generate import GenerateParams, Suite
from studies.ablation.analysis import CONTROL, LAYOUTS, SETTINGS, AblationPlan, oracle_of
from studies.ablation.images import PAIRS, images_path
from studies.trials import Trial, scores_path

Boxes = Mapping[int, Float[np.ndarray, " 4"]]
"""The box of every person's face in pixels, by the person's place in the prompt."""


@dataclass(frozen=True)
class Masked:
    """Drawing images of a suite once more with their layouts."""

    suite: Suite
    layouts: Sequence[Boxes | None]
    """The layout of each prompt's first image; ``None`` where somebody was not located: it stays as it is."""

    def images(self, faces: Sequence[tuple[str, ...]], first: Sequence[GeneratedImage]) -> Iterator[GeneratedImage]:
        """The images from the references of some faces, given their first pass."""
        requests = self.suite.requests(faces)
        orders, place = self.suite.orders(faces), 0
        for network, conditions, noise in batches(self.suite.pipeline, requests):
            parts = range(place, place + len(noise))
            owners = [slots_of(self.layouts[i], orders[i], first[i], network.layout.image) for i in parts]
            masked = replace(conditions, owners=torch.from_numpy(np.stack(owners)).to(noise.device))
            drawn = decode_latents(self.suite.pipeline, latents(network, masked, noise, requests.params))
            for i, image in zip(parts, drawn, strict=True):
                yield replace(first[i], image=first[i].image if self.layouts[i] is None else image, attention=None)
            place += len(noise)


def slots_of(
    layout: Boxes | None, order: Int[np.ndarray, " people"], first: GeneratedImage, grid: Grid
) -> Int[np.ndarray, " tokens"]:
    """For each token the slot of the person whose head it shows, else -1; slot i holds person ``order[i]``."""
    people = owners_of(layout or {}, first.image.shape[:2], grid)
    return np.where(people < 0, -1, np.argsort(order)[people])


def owners_of(boxes: Boxes, size: tuple[int, int], grid: Grid) -> Int[np.ndarray, " tokens"]:
    """For each token the person whose head its centre lies in, -1 in nobody's.

    A head is the square that a reference would be cut with (`mcpipe.curate.samples.face_crop`). Where squares overlap,
    a token belongs to the nearer face, in units of the squares' sides. ``size`` is the image's height and width.
    """
    y, x = np.mgrid[: grid[0], : grid[1]]
    centres = np.stack([(x.ravel() + 0.5) * size[1] / grid[1], (y.ravel() + 0.5) * size[0] / grid[0]], axis=1)
    owners, nearest = np.full(len(centres), -1), np.full(len(centres), 0.5)
    for person, box in sorted(boxes.items()):
        side = FACE_MARGIN * max(box[2] - box[0], box[3] - box[1])
        distance = np.abs(centres - (box[:2] + box[2:]) / 2).max(axis=1) / side
        inside = distance < nearest
        owners[inside], nearest[inside] = person, distance[inside]
    return owners


def located(image: GeneratedImage, pool: Mapping[str, PoolFace], analyser: FaceAnalyser) -> Boxes | None:
    """The layout of an image; ``None`` unless everybody is located."""
    faces = analyser.faces(image.image)
    pairs = pairing(cosines(np.stack([pool[name].embedding for name in image.names]), faces.embeddings))
    return located_boxes(pairs, faces) if len(pairs) == len(image.names) else None


def with_oracles(plan: AblationPlan, trials: Sequence[Trial], folder: Path) -> tuple[AblationPlan, list[Trial]]:
    """The plan and the trials of a study with the plan's oracles as further rows; their files go to ``folder``.

    The current folder is the checkout of the study, whose models were used. One thread, as in the pipeline's stages.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    chosen = [trial for trial in trials if trial.arm.name in plan.oracles]
    masked = []
    for trial in track(chosen, len(chosen), "drawing with the masked-attention oracle"):
        experiment = trial.experiment
        row = experiment.model_copy(update={"name": f"{experiment.name}-oracle", "arm": oracle_of(experiment.arm)})
        masked.append(Trial(row, folder / row.name))
        redraw(trial, Path.cwd(), masked[-1].folder)
    return plan.with_oracles(), [*trials, *masked]


def redraw(trial: Trial, root: Path, folder: Path) -> None:
    """Draw and score an experiment's images once more, into a folder like the trial's own.

    The experiment's models lie under ``root``.
    """
    content: Any = parse_yaml((trial.folder / SETTINGS).read_text(encoding="utf-8"))
    evaluation, models = params_of(content, "evaluate", EvaluateParams), content["models"]
    analyser = InsightFaces(root / models["faces"], evaluation.min_face_score, evaluation.detection_size)
    pairs, own = trial.folder / PAIRS, images_path(trial.arm)
    pool = {face.key: face for face in read_shards(pairs / "faces", PoolFace)}
    prompts = list(read_shards(pairs / "bench", PairPrompt))
    pipeline = load_generator(root / models["generator"])
    spec = load_adapter(pipeline, trial.model(trial.arm.evaluated))
    merge_plain(pipeline.transformer)
    references = {name: face.reference for name, face in pool.items()}
    suite = Suite(pipeline, spec, prompts, references, params_of(content, "generate", GenerateParams))
    drawn = {image.key: image for image in read_shards(trial.folder / own, GeneratedImage)}
    first = [drawn[prompt.key] for prompt in prompts]
    masked = Masked(suite, [located(image, pool, analyser) for image in first])
    named = [prompt.names for prompt in prompts]
    write_shards(masked.images(named, first), folder / own, suite.params.records_per_shard)
    control = {image.key: image for image in read_shards(trial.folder / own / CONTROLS / CONTROL, GeneratedImage)}
    others = control_faces(CONTROL, named, list(pool), suite.params.seed)
    unmasked = [control[prompt.key] for prompt in prompts]
    write_shards(masked.images(others, unmasked), folder / own / CONTROLS / CONTROL, suite.params.records_per_shard)
    shutil.copytree(trial.folder / own / CONTROLS / TARGETS, folder / own / CONTROLS / TARGETS)
    paths = {name: root / models[name] for name in (*MODELS, *REWARD_MODELS)}
    write_scores(pairs, folder / own, paths, (folder / scores_path(trial.arm)).parent, evaluation)
    share = sum(layout is not None for layout in masked.layouts) / len(prompts)
    (folder / LAYOUTS).write_text(json.dumps({"share": share}), encoding="utf-8")
