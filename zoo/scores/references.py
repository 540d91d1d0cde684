"""Scores of the generator with references: whether it draws the people whose faces it is given.

New people, captions in the form "scene", which describe clothes and places and nobody's face. Each image is drawn four
times from the same text and noise: from its own references, from somebody else's, from its own in another order, and
without any.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from mcpipe.bench.copying import same_and_cross
from mcpipe.bench.metrics import pairing
from mcpipe.core.params import read_params
from mcpipe.core.progress import track
from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.sampler import Requests, SampleParams, generate
from mcpipe.models.protocols import FaceAnalyser
from mcpipe.objectives.reward import identity_reward
from mcpipe.steps.generate import GenerateParams
from mcpipe.world.captions import describe_setting, trait_phrases
from mcpipe.world.identities import sample_identity
from mcpipe.world.lookalikes import look_alike
from mcpipe.world.scene import RenderedFrame, render, render_portrait, sample_scene
from mcpipe.world.setting import CLOSE
from zoo.build.crops import FRAME, SQUARE, cut_out, face_crop
from zoo.build.generator_data import TOKEN_PX
from zoo.build.scene_records import PORTRAIT
from zoo.scores.draw import GENERATED, LATEST_S, Job, stream
from zoo.scores.figures import Figure
from zoo.scores.sheet import save_rows

NUM_PROMPTS = {1: 48, 2: 96}
"""Prompts, by the number of people."""

REFERENCE_SCALE = 1.5
"""Side of a reference in longer sides of the face's box (`mcpipe.curate.samples`)."""

REFERENCE_PX = 48
LEAST_SHARE = 0.5
"""Share of a token that a head must cover for the token to be its person's."""

SETTINGS = Path("params.yaml")
BARS: dict[int, dict[str, float]] = {
    1: {"right": 0.5, "others": 0.1}, 2: {"right": 0.45, "others": 0.12, "own_minus_cross": 0.5}
}  # fmt: skip
"""Required values, by the number of references."""

BATCH = 12
NUM_SHOWN = 12
"""Rows of the contact sheet."""


@dataclass(frozen=True)
class Task:
    """A prompt with the people it is about."""

    prompt: str
    references: np.ndarray
    """(people, 48, 48, 3) uint8, each person on white."""
    identities: np.ndarray
    """(people, 512) embeddings of their portraits."""
    target: np.ndarray
    """(96, 96, 3) uint8, a true image of the prompt."""
    owners: np.ndarray
    """(tokens,) number of the person whose head a token of the target shows, -1 elsewhere."""
    phrases: tuple[tuple[str, ...], ...]
    """Phrases about the lasting traits of each person (`mcpipe.bench.leaks`)."""


@dataclass
class Tally:
    """Scores of the images of one kind."""

    face_sim: list[float] = field(default_factory=list)
    own_minus_cross: list[float] = field(default_factory=list)
    num_located: int = 0
    num_people: int = 0
    duplicates: list[bool] = field(default_factory=list)

    def add(self, task: Task, image: np.ndarray, faces: FaceAnalyser) -> None:
        """Count an image."""
        similarity = task.identities @ faces.faces(image).embeddings.T
        pairs = pairing(similarity)
        self.face_sim.append(identity_reward(similarity))
        self.num_people, self.num_located = self.num_people + len(task.identities), self.num_located + len(pairs)
        if len(pairs) == len(task.identities) > 1:
            same, cross = same_and_cross(similarity, pairs)
            self.own_minus_cross.append(float(np.mean(same) - np.mean(cross)))
            best = similarity[:, list(pairs.values())].argmax(axis=0)
            self.duplicates.append(len(set(best.tolist())) < len(best))


def tasks(faces: FaceAnalyser, seed: int, count: int, total: int, *, alike: bool = False) -> Iterator[Task]:
    """Prompts about ``count`` new people each, with references cut from their portraits.

    With ``alike``, the second person is a look-alike of the first. People in whose portraits the detector finds no
    face are left out.
    """
    for index in range(total):
        rng = stream(seed, "references", count, index, int(alike))
        people = [sample_identity(rng) for _ in range(count)]
        if alike:
            people[1] = look_alike(rng, people[0])
        scene = sample_scene(rng, people, framing=CLOSE)
        frame = render(scene, float(rng.uniform(0.0, LATEST_S)), *FRAME)
        left = (FRAME[0] - SQUARE) // 2
        portraits = [render_portrait(person, rng, PORTRAIT) for person in people]
        cut = [np.dstack([shot.rgb, (shot.labels == 1).astype(np.uint8) * 255]) for shot in portraits]
        crops = [
            face_crop(cut_out(four), shot.people[0].face_box, REFERENCE_SCALE, REFERENCE_PX)
            for four, shot in zip(cut, portraits, strict=True)
        ]
        detected = [faces.faces(shot.rgb).embeddings for shot in portraits]
        if all(len(embeddings) for embeddings in detected):
            identities = np.stack([embeddings[0] for embeddings in detected])
            square = frame.rgb[:, left : left + SQUARE]
            yield Task(
                prompt=describe_setting(scene, rng, cue_share=0.0),
                references=np.stack(crops),
                identities=identities,
                target=resized(square),
                owners=owners_of(frame, left),
                phrases=tuple(tuple(trait_phrases(person).values()) for person in people),
            )


def owners_of(frame: RenderedFrame, left: int) -> np.ndarray:
    """For each token of a square, the person whose head covers at least half of it, or -1; (tokens,)."""
    side = GENERATED // TOKEN_PX
    owners = np.full((side, side), -1)
    for seat, person in enumerate(frame.people):
        head = frame.labels == seat + 1
        head[int(person.face_box[3]) :] = False
        share = cv2.resize(head[:, left : left + SQUARE].astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
        owners[share >= LEAST_SHARE] = seat
    return owners.ravel()


def resized(square: np.ndarray) -> np.ndarray:
    """A square at the generator's size."""
    return cv2.resize(square, (GENERATED, GENERATED), interpolation=cv2.INTER_AREA)


def drawn(pipeline: FluxPipeline, given: Sequence[Task], seed: int, sample: SampleParams) -> dict[str, list]:
    """Images of every task from its own references, others', its own in another order, and none."""
    own = [task.references for task in given]
    kinds = {
        "right": own, "others": [*own[1:], own[0]], "swapped": [each[::-1].copy() for each in own], "none": own,
    }  # fmt: skip
    seeds = [1000 * seed + number for number in range(len(given))]
    prompts = [task.prompt for task in given]
    return {
        kind: list(track(generate(
            pipeline, Requests(prompts, references, seeds, sample, GENERATED, BATCH), hide_references=kind == "none"
        ), len(given), f"drawing, {kind} references"))
        for kind, references in kinds.items()
    }  # fmt: skip


def reference_figures(pipeline: FluxPipeline, faces: FaceAnalyser, job: Job) -> list[Figure]:
    """Face-Sim with one and with two references, beside its controls; the images go to a contact sheet."""
    sample = read_params(SETTINGS, "generate", GenerateParams).sample
    figures = []
    for count, total in NUM_PROMPTS.items():
        given = list(tasks(faces, job.seed, count, total))
        images = drawn(pipeline, given, job.seed, sample)
        tallies = {kind: Tally() for kind in images} | {"true": Tally()}
        for number, task in enumerate(given):
            for kind, tally in tallies.items():
                tally.add(task, task.target if kind == "true" else images[kind][number], faces)
        name = {1: "one", 2: "two"}[count]
        bars = BARS[count]
        of = f"images of {count} people" if count > 1 else "images of one person"
        for kind, tally in tallies.items():
            bar = bars.get(kind)
            figures.append(Figure(
                f"{name}_face_sim_{kind}", float(np.mean(tally.face_sim)), len(tally.face_sim), of,
                bar, below=kind != "right",
            ))  # fmt: skip
        right = tallies["right"]
        figures.append(
            Figure(f"{name}_located", right.num_located / right.num_people, right.num_people, "people", 0.95)
        )
        if count > 1:
            figures.append(Figure(
                f"{name}_own_minus_cross", float(np.mean(right.own_minus_cross)), len(right.own_minus_cross),
                "images with both faces", bars["own_minus_cross"],
            ))  # fmt: skip
            figures.append(Figure(f"{name}_duplicates", float(np.mean(right.duplicates)), len(right.duplicates), of))
            save_rows(
                job.sheet.with_name("references.png"),
                [[*task.references, images["right"][number], images["swapped"][number], images["others"][number],
                  images["none"][number], task.target] for number, task in enumerate(given[:NUM_SHOWN])],
            )  # fmt: skip
    return figures
