"""The masked-attention oracle on the prompts of a finished study: ``python -m studies.ablation.oracle --arms NAME...``.

An arm's images are the first of two passes. The faces that the recogniser locates in an image, each assigned to a
person as for Face-Sim, are its layout. The second pass draws from the same text, noise and references, and the tokens
of a head may attend to the reference of its person alone, as in the gate ``oracle`` of `zoo.scores.gates`. Other
people's references, of which the identity lift is made, are drawn with the same layout.

The layout is what the model drew, and the recogniser that scores has read it, which favours the second pass: it shows
what attention in the right place can add to these images and is no method.
"""

import argparse
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int

from mcpipe.bench.controls import CONTROLS, TARGETS, control_faces
from mcpipe.bench.metrics import located_boxes, pairing
from mcpipe.core.errors import one_line
from mcpipe.core.offline import stay_offline
from mcpipe.core.params import params_of
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
from studies.ablation.analysis import AblationPlan, summary
from studies.ablation.images import PAIRS, images, images_path
from studies.plan import Arm, Experiment, changed, experiments, read_plan
from studies.repository import Repository
from studies.trials import Trial, scores_path

CONTROL = "other_people"
"""The control that the identity lift needs."""
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


def redraw(trial: Trial, root: Path, content: Mapping[str, Any], folder: Path) -> tuple[int, int]:
    """Draw and score an experiment's images once more, into a folder like the trial's own.

    ``content`` are the experiment's settings, whose models lie under ``root``. Returns the number of images with a
    layout and of all images.
    """
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
    return sum(layout is not None for layout in masked.layouts), len(prompts)


def oracle_of(experiment: Experiment) -> Experiment:
    """The experiment as an arm of its own, beside itself."""
    arm = experiment.arm
    masked = Arm(name=f"{arm.name}oracle", title=f"{arm.title}, oracle", evaluated=arm.evaluated, settings=arm.settings)
    return experiment.model_copy(update={"name": f"{experiment.name}-oracle", "arm": masked})


def run(plan_file: Path, names: Sequence[str], out: Path) -> str:
    """Draw the oracle's images of some arms of a finished study and write their table; returns the page.

    Raises:
        ValueError: the plan has no such arm, or an experiment of it is not finished.
    """
    plan = read_plan(plan_file, AblationPlan)
    if strangers := set(names) - plan.titles.keys():
        raise ValueError(f"{plan_file} has no arm {min(strangers)}; it has {', '.join(plan.titles)}")
    repository = Repository(Path.cwd())
    state, trials, layouts = repository.state(), [], []
    planned = [experiment for experiment in experiments(plan) if experiment.arm.name in names]
    if missing := [experiment.name for experiment in planned if experiment.name not in state.results]:
        raise ValueError(f"{missing[0]} is not finished at this commit; run the study with {plan_file} first")
    with TemporaryDirectory() as place:
        for experiment in planned:
            trial = Trial(experiment, Path(place, experiment.name))
            masked = oracle_of(experiment)
            arm = experiment.arm
            paths = [PAIRS, images_path(arm), scores_path(arm), f"data/models/{arm.evaluated}"]
            repository.export(state.results[experiment.name].commit, paths, trial.folder)
            folder = Path(place, masked.name)
            count, total = redraw(trial, repository.root, changed(state.params, experiment.settings), folder)
            layouts.append(f"{count} of {total} images of {experiment.name}")
            trials += [trial, Trial(masked, folder)]
        return write(plan, state.commit, trials, ", ".join(layouts), out)


def write(plan: AblationPlan, commit: str, trials: Sequence[Trial], layouts: str, out: Path) -> str:
    """Write the page, scores and images of arms and their oracles; returns the page."""
    arms = list({trial.arm.name: trial.arm for trial in trials}.values())
    pairs = [[arm.name, oracle.name] for arm, oracle in zip(arms[::2], arms[1::2], strict=True)]
    changes = {"arms": arms, "controls": [], "comparisons": pairs, "published": {}, "diagnosis": []}
    result = summary(plan.model_copy(update=changes), commit, trials)
    page = f"""# The masked-attention oracle on the study's prompts

By `python -m studies.ablation.oracle` with the plan `{plan.name}` at commit {commit[:7]}: {len(plan.seeds)} seeds, \
{len(result.prompts)} prompts. The layout of an image is read from the arm's own one, and exists where everybody was \
located, in {layouts}; the others stay as they are. In brackets 95 % bootstrap intervals over seeds and {result.units}.

{result.means_table()}

Changes are paired: same seed, same prompt, same noise.

{result.changes_table()}
"""
    out.mkdir(parents=True, exist_ok=True)
    (out / "oracle.md").write_text(page, encoding="utf-8")
    result.write_scores(out / "scores.csv")
    images(result.plan, trials, plan.num_shown).save(out / "images.jpg", quality=90)
    return page


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m studies.ablation.oracle", description="The oracle of some arms.")
    parser.add_argument("--plan", type=Path, default=Path(__file__).parent / "plan.yaml", help="plan of the study")
    parser.add_argument("--arms", nargs="+", required=True, help="names of arms")
    parser.add_argument("--out", type=Path, default=Path("data/ablation_oracle"), help="folder of the results")
    options = parser.parse_args(arguments)
    stay_offline()
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("mcpipe").setLevel(logging.INFO)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        print(run(options.plan, options.arms, options.out))
    except (RuntimeError, ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
