"""A miniature of PSRBench in the published format, drawn by the world, and models that stand in for its own."""

import json
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from mcpipe.bench.psr.suite import SUBSETS
from mcpipe.world.captions import describe_face
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.scene import render, sample_scene

SIZE = (96, 72)
SAMPLES = 2
NUMBERS = {"three": 3, "four": 4}
"""Subjects of a sample, where they are not two."""
RELATIONS = ("to the left of", "next to", "beside")
"""Phrases of the samples of Position; the last one has no rule."""


@dataclass
class TrueGrounder:
    """Finds what the world has drawn, by the image's bytes and the phrase."""

    truth: dict[tuple[bytes, str], list[np.ndarray]] = field(default_factory=dict)

    def boxes(self, picture, phrase):
        boxes = self.truth.get((picture.tobytes(), phrase), [])
        return np.reshape(boxes, (-1, 4)).astype(float), np.full(len(boxes), 0.9)


class StandInJudge:
    """Answers a question with the next of its answers, and with the last one from then on."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def answer(self, pictures, instruction, *, temperature, seed, max_tokens):
        self.asked.append((len(pictures), instruction, temperature, seed, max_tokens))
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


def draw(grounder, seed, identities):
    """An image of up to four people side by side; its truth goes to the grounder."""
    halves = [identities[:2], identities[2:]] if len(identities) > 3 else [identities]
    parts, boxes, left = [], [], 0
    for number, half in enumerate(halves):
        rng = world_rng("psr", seed, number)
        frame = render(sample_scene(rng, half), 0.0, *SIZE)
        parts.append(frame.rgb)
        boxes += [(person.identity, person.box + [left, 0, left, 0]) for person in frame.people]
        left += SIZE[0]
    picture = np.concatenate(parts, axis=1)
    for identity, box in boxes:
        grounder.truth.setdefault((picture.tobytes(), describe_face(identity)), []).append(box)
    return picture


def write_psrbench(folder, images, grounder, position_samples=SAMPLES):
    """The suite below ``folder``, and below ``images`` the same people drawn anew, as a system should draw them."""
    (folder / "subjects").mkdir(parents=True)
    for place, subset in enumerate(SUBSETS):
        entries = []
        for number in range(position_samples if subset == "position" else SAMPLES):
            seed = 10 * place + number
            rng = world_rng("psr-people", seed)
            people = [sample_identity(rng) for _ in range(NUMBERS.get(subset, 2))]
            entry = {"instruction": f" {RELATIONS[number]} ".join(map(describe_face, people)), "task": subset}
            paths = [f"subjects/{subset}-{number}-{index}.png" for index in range(len(people))]
            for index, (path, person) in enumerate(zip(paths, people, strict=True)):
                Image.fromarray(draw(grounder, 1000 + seed, [person])).save(folder / path)
                entry[f"category{index + 1}"] = describe_face(person)
            entries.append(entry | {"input_path" if place % 2 else "input_paths": paths})
            (images / subset.title()).mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(grounder, seed, people)).save(images / subset.title() / f"{number}.png")
        (folder / f"{subset.title()}.json").write_text(json.dumps(entries), encoding="utf-8")
