"""Stand-ins for the models that make synthetic data: a writer, a drawer and an encoder that know coloured boxes.

They are loaded like the models that they stand in for, from a path, and can be imported by other processes.
"""

import re

import numpy as np
from object_fixtures import COLOURS, finder, scene

from mcpipe.curate.psr_settings import EditChecks, EditsParams, KindParams, NumberShares, TaskShares, TextsParams
from mcpipe.flux.kontext import EditorParams
from mcpipe.flux.sampler import SampleParams
from mcpipe.models.protocols import Faces, People
from mcpipe.steps.synthetic_rows import LikenessParams, Redrawer, SyntheticParams
from mcpipe.steps.synthetic_subjects import SubjectModels, ThingFinder
from mcpipe.steps.synthetic_targets import TargetsParams

CATEGORIES = ["red box", "green box", "blue box", "yellow box"]
PLACES = {"red": (4, 4, 22, 20), "green": (26, 4, 44, 20), "blue": (4, 26, 22, 44), "yellow": (26, 26, 44, 44)}
"""Box of each colour in a drawn target."""
SIDES = ("on the left", "in the middle", "on the right", "far right")
EDITS = EditsParams(editor=None, share=0.0)
TEXTS = {
    "seed": 0, "numbers": NumberShares(two=1.0, three=0.0, four=0.0), "sentences": {}, "recaption": "grammar",
    "attempts": 2, "temperature": 1.0, "max_tokens": 20, "records_per_shard": 4,
    "edits": EDITS,
}  # fmt: skip
KINDS = {
    "things": {
        "num_texts": 6, "categories": CATEGORIES,
        "tasks": TaskShares(attribute=0.0, background=0.5, action=0.0, position=0.5, complex=0.0),
    },
    "people": {
        "num_texts": 6, "categories": ["person"],
        "tasks": TaskShares(attribute=0.25, background=0.0, action=0.25, position=0.25, complex=0.25),
    },
}  # fmt: skip
DRAWING = {
    "seed": 0, "attempts": 2, "min_score": 0.5, "max_same_box": 0.7, "min_person_score": 0.5, "min_face_score": 0.5,
    "detection_size": 64, "sample": SampleParams(num_steps=2, guidance=4.0, shift=1.5),
    "image_size": 48, "reference_size": 16, "editing": EditorParams(side=32, num_steps=2, guidance=2.5),
    "records_per_shard": 4,
}  # fmt: skip
CHECKS = EditChecks(attempts=2, min_similarity={"things": 0.5, "people": 0.5}, questions=[])
TARGETS = DRAWING | {"edits": EDITS, "edit_checks": CHECKS}


def kinds(**things):
    """Both kinds, with changed settings of things."""
    return {name: KindParams(**(own | (things if name == "things" else {}))) for name, own in KINDS.items()}


def texts_params(**changes):
    of_things = {name: changes.pop(name) for name in ("num_texts", "categories") if name in changes}
    return TextsParams(**(TEXTS | {"kinds": kinds(**of_things)} | changes))


def targets_params(**changes):
    return TargetsParams(**(TARGETS | changes))


def synthetic_params(**changes):
    return SyntheticParams(**(DRAWING | {"likeness": {"things": likeness(), "people": likeness()}, "questions": [],
                                        "editor": None} | changes))  # fmt: skip


def likeness(low=0.5, high=1.0):
    return LikenessParams(min_similarity=low, max_similarity=high)


def described(categories, place="in a park"):
    """A sentence in the grammar of the zoo's judge, in which every box is striped."""
    parts = [f"{side} a striped {category}" for side, category in zip(SIDES, categories, strict=False)]
    return f"{len(categories)} things {place}: {'; '.join(parts)}"


class BoxWriter:
    """Describes the categories of an instruction; ``forget`` are never named, ``mute`` answers come first."""

    def __init__(self, forget=(), mute=0):
        self.forget, self.mute, self.asked = forget, mute, []

    def answer(self, pictures, instruction, *, temperature, seed, max_tokens):
        self.asked.append((instruction, seed))
        if len(self.asked) <= self.mute:
            return ""
        categories = [name for name in re.findall(r"\w+ box", instruction) if name not in self.forget]
        return described(categories or ["white ball"])


def load_writer(_folder):
    return BoxWriter()


class BoxDrawer:
    """Draws a box for every colour that a prompt names, or the reference enlarged; ``miss`` draws show nothing."""

    def __init__(self, miss=0, colour_of=None):
        self.miss, self.colour_of, self.drawn = miss, colour_of or {}, []

    def draw(self, prompt, reference, seed):
        self.drawn.append((prompt, reference is None, seed))
        if len(self.drawn) <= self.miss:
            return scene()
        colours = [name for name in COLOURS if name in prompt]
        return scene(*((self.colour_of.get(colour, colour), *PLACES[colour]) for colour in colours))


def load_boxes(_generator, _adapter, _params):
    return BoxDrawer()


class MeanColour:
    """Embeds an image by the mean of what is not white."""

    def pictures(self, pictures):
        means = np.stack([picture[picture.min(axis=2) < 250].mean(axis=0) for picture in pictures]) - 128
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


def load_mean_colour(_folder):
    return MeanColour()


def thing_finder(dino=None):
    return ThingFinder(finder(), dino or MeanColour(), 0.7)


def subject_models(objects, folder):
    """Stand-ins for the models that find subjects of both kinds."""
    return SubjectModels(objects, folder, folder, folder, load_mean_colour, load_joints, load_colour_faces)


class ColourFaces:
    """Finds a face on every coloured box, from right to left, and recognises it by its colour."""

    name = "colours"

    def faces(self, picture):
        boxes = [box for box in map(np.float32, PLACES.values()) if np.ptp(picture[tuple(inside(box))]) > 60][::-1]
        colours = [picture[tuple(inside(box))].astype(np.float32) - 128 for box in boxes]
        return Faces(
            boxes=np.reshape(boxes, (-1, 4)).astype(np.float32), scores=np.ones(len(boxes), np.float32),
            landmarks=np.zeros((len(boxes), 5, 2), np.float32),
            embeddings=np.reshape([colour / np.linalg.norm(colour) for colour in colours], (-1, 3)).astype(np.float32),
        )  # fmt: skip


class Joints:
    """Finds a body wherever `ColourFaces` finds a face, in another order, with its joints in the middle."""

    def people(self, picture):
        faces = ColourFaces().faces(picture)
        boxes = faces.boxes[::-1].copy()
        joints = np.ones((len(boxes), 17, 3), np.float32)
        joints[:, :, :2] = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None]
        return People(boxes=boxes, scores=faces.scores, keypoints=joints)


def inside(box):
    """Row and column of a box's middle."""
    return ((box[1] + box[3]) // 2).astype(int), ((box[0] + box[2]) // 2).astype(int)


def load_joints(_file, _score):
    return Joints()


def load_colour_faces(_folder, _score, _size):
    return ColourFaces()


def stop_at_the_third_row(monkeypatch):
    """Interrupt redrawing when it begins its third row, once; returns the keys of the rows that it begins."""
    row, calls = Redrawer.row, []

    def stopping(self, target):
        calls.append(target.key)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return row(self, target)

    monkeypatch.setattr(Redrawer, "row", stopping)
    return calls
