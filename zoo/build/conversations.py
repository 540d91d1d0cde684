"""Training data of the captioner: captions of images, invented prompts for faces, and yes-or-no questions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from mcpipe.curate.captions import CAPTION_INSTRUCTIONS, PROMPT_INSTRUCTIONS, Describe
from mcpipe.world.captions import COUNTS
from mcpipe.world.outfits import COLOURS, OBJECTS
from zoo.build.crops import SQUARE, on_white
from zoo.build.pictures import Pictures
from zoo.build.regions import regions_of
from zoo.build.sightings import Sighting, in_reference, in_scene

TASK_SHARES = {"caption": 0.36, "setting": 0.20, "prompt": 0.08, "setting_prompt": 0.06, "question": 0.30}
"""Kinds of conversations: captions and prompts in both forms (`Describe`), and questions."""
REFERENCE_SIDES = (48, 90)
"""Pixels; the pipeline's references are somewhere in between."""

SQUARE_SHARE = 0.4
"""Targets shown as squares; the others are whole frames."""

NUM_QUESTIONS = 8
"""Number of questions about one image in a sequence: an answer is one bit, and the image costs most of the time."""


COUNT_SHARES = {1: 0.2, 2: 0.45, 3: 0.2, 4: 0.15}
"""How often a question is about one, two, three or four people."""


@dataclass(frozen=True)
class Question:
    """A question that is answered by yes or no."""

    text: str
    answer: str
    names: tuple[str, str] | None
    """Object of the question, as an attribute and its value in `VOCABULARY`; ``None`` if people are counted."""


@dataclass(frozen=True)
class Conversation:
    """Images, an instruction about them, and the right answer."""

    pictures: list[np.ndarray]
    instruction: str
    answer: str
    sightings: list[Sighting]
    """People and their places in the images."""

    target: "Target | None" = None
    """The last image, if it shows a scene."""

    questions: tuple[Question, ...] = ()
    """All that is asked about the same images one after the other, if these are questions."""


def numbered(conversations: Sequence[Conversation]) -> list[Sighting]:
    """All sightings, with images numbered through the batch."""
    starts = np.cumsum([0, *(len(conversation.pictures) for conversation in conversations)])
    return [
        replace(sighting, picture=sighting.picture + int(start))
        for start, conversation in zip(starts, conversations, strict=False)
        for sighting in conversation.sightings
    ]


def draw(pictures: Pictures, task: str, index: int, rng: np.random.Generator) -> Conversation:
    """A conversation about one scene, of a kind named in `TASK_SHARES`."""
    drawers = {
        "caption": caption,
        "setting": partial(caption, describe="scene"),
        "prompt": prompt,
        "setting_prompt": partial(prompt, describe="scene"),
        "question": questions,
    }
    return drawers[task](pictures, index, rng)


def caption(pictures: Pictures, index: int, rng: np.random.Generator, describe: Describe = "people") -> Conversation:
    """References in any order and the target: the true caption in a form."""
    target = _target(pictures, index, rng)
    references = _references(pictures, index, rng)
    order = rng.permutation(len(references)) if rng.random() < 0.5 else np.arange(len(references))
    scene = pictures.scenes[index]
    return Conversation(
        pictures=[*(references[place] for place in order), target.picture],
        instruction=CAPTION_INSTRUCTIONS[describe].format(num_subjects=len(references)),
        answer=in_form(scene["mirrored_caption"] if target.mirrored else scene["caption"], describe),
        sightings=[in_reference(rank, scene["attributes"][place]) for rank, place in enumerate(order)]
        + target.sightings(len(references)),
        target=target,
    )


def prompt(pictures: Pictures, index: int, rng: np.random.Generator, describe: Describe = "people") -> Conversation:
    """References alone: a made-up scene in which the same people stand in the same order."""
    references = _references(pictures, index, rng)
    scene = pictures.scenes[index]
    return Conversation(
        pictures=references,
        instruction=PROMPT_INSTRUCTIONS[describe].format(num_subjects=len(references)),
        answer=in_form(scene["invented"][int(rng.integers(len(scene["invented"])))], describe),
        sightings=[in_reference(place, attributes) for place, attributes in enumerate(scene["attributes"])],
    )


def in_form(sentence: str, describe: Describe) -> str:
    """A sentence about people in another form: "scene" keeps what they wear and hold, and drops their traits."""
    return (
        re.sub(r"(a person) with .*?(?=, wearing )", r"\1", sentence).replace("a person, wearing", "a person wearing")
        if describe == "scene"
        else sentence
    )


def question(pictures: Pictures, index: int, rng: np.random.Generator, number: int = 1) -> Conversation:
    """The target and ``number`` different questions about it, each equally often true and false."""
    people = pictures.scenes[index]["attributes"]
    kinds = (_count_question, _glasses_question, _shirt_question, _object_question)
    by_text: dict[str, Question] = {}
    while len(by_text) < number:
        drawn = kinds[int(rng.integers(len(kinds)))](people, rng)
        by_text[drawn.text] = drawn
    target = _target(pictures, index, rng)
    first, *_ = questions = tuple(by_text.values())
    return Conversation([target.picture], first.text, first.answer, target.sightings(0), target, questions)


def questions(pictures: Pictures, index: int, rng: np.random.Generator) -> Conversation:
    """The target and `NUM_QUESTIONS` questions."""
    return question(pictures, index, rng, NUM_QUESTIONS)


@dataclass(frozen=True)
class Target:
    """A scene as it is shown."""

    picture: np.ndarray
    scene: int
    """Its number in the image set."""

    cropped: bool
    mirrored: bool
    faces: list[tuple[float, float]]
    """Left and right edges as shares of the width, in the order of the scene's people."""

    attributes: list[dict[str, str]]

    def regions(self, pictures: Pictures, side: tuple[int, int]) -> np.ndarray:
        """Classes of its patches (`zoo.build.regions`), (rows, columns, attributes)."""
        classes = regions_of(pictures, self.scene, cropped=self.cropped, side=side)
        return classes[:, ::-1] if self.mirrored else classes

    def sightings(self, place: int) -> list[Sighting]:
        """Everybody in it, as the image of that number."""
        return [in_scene(place, face, attributes) for face, attributes in zip(self.faces, self.attributes, strict=True)]


def _target(pictures: Pictures, index: int, rng: np.random.Generator) -> Target:
    """The square or the frame, mirrored or not."""
    scene = pictures.scenes[index]
    cropped, mirrored = rng.random() < SQUARE_SHARE, bool(rng.random() < 0.5)
    whole = pictures.square(index) if cropped else pictures.frames[index]
    start, width = (0, SQUARE) if cropped else (scene["left"], whole.shape[1])
    edges = [((box[0] + start) / width, (box[2] + start) / width) for box in scene["faces"]]
    return Target(
        picture=np.ascontiguousarray(whole[:, ::-1] if mirrored else whole),
        scene=index,
        cropped=bool(cropped),
        mirrored=mirrored,
        faces=[(1 - right, 1 - left) for left, right in edges] if mirrored else edges,
        attributes=scene["attributes"],
    )


def _references(pictures: Pictures, index: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Face crops of everybody in the scene, all of one size."""
    scene = pictures.scenes[index]
    side = int(rng.integers(REFERENCE_SIDES[0], REFERENCE_SIDES[1] + 1))
    crops = [
        on_white(pictures.references[scene["first_reference"] + seat], rng) for seat in range(len(scene["people"]))
    ]
    return [cv2.resize(crop, (side, side), interpolation=cv2.INTER_LINEAR) for crop in crops]


def _count_question(people: list[dict], rng: np.random.Generator) -> Question:
    count = int(rng.choice(list(COUNT_SHARES), p=list(COUNT_SHARES.values())))
    number = COUNTS[count].removesuffix(" people").removesuffix(" person")
    start = "Is there exactly one person" if count == 1 else f"Are there exactly {number} people"
    return _yes_or_no(f"{start} in the picture?", count == len(people), None)


def _glasses_question(people: list[dict], rng: np.random.Generator) -> Question:
    del rng
    worn = any(person["glasses"] == "glasses" for person in people)
    return _yes_or_no("Does anybody in the picture wear glasses?", worn, ("glasses", "glasses"))


def _shirt_question(people: list[dict], rng: np.random.Generator) -> Question:
    worn = [person["shirt_colour"] for person in people]
    colour = str(rng.choice(worn if rng.random() < 0.5 else [name for name in COLOURS if name not in worn]))
    text = f"Does anybody in the picture wear a {colour} shirt?"
    return _yes_or_no(text, colour in worn, ("shirt_colour", colour))


def _object_question(people: list[dict], rng: np.random.Generator) -> Question:
    held = [person["object"] for person in people if person["object"] != "none"]
    others = [name for name in OBJECTS if name not in held]
    kind = str(rng.choice(held if held and rng.random() < 0.5 else others))
    return _yes_or_no(f"Does anybody in the picture hold a {kind}?", kind in held, ("object", kind))


def _yes_or_no(text: str, true: bool, names: tuple[str, str] | None) -> Question:
    return Question(f"{text} Answer yes or no.", "yes" if true else "no", names)
