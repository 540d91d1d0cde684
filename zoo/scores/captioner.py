"""Scores of the captioner, asked as the pipeline asks it."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from mcpipe.core.progress import track
from mcpipe.curate.captions import CAPTION_INSTRUCTIONS, SUBJECT, Describe, describes_people
from mcpipe.curate.samples import cut_window, face_crop
from mcpipe.curate.windows import square_window
from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.world.captions import describe_scene
from mcpipe.world.identities import sample_identity
from mcpipe.world.scene import render, sample_scene
from mcpipe.world.shots import FRAMINGS, ShotSize
from zoo.build.conversations import question
from zoo.build.crops import FRAME
from zoo.build.crowds import CROWD
from zoo.build.pictures import Pictures
from zoo.scores.draw import CLIP, Job, stream, visible_box
from zoo.scores.figures import Figure
from zoo.scores.mentions import ATTRIBUTES, EXTRA, f1_scores
from zoo.scores.pictures import drawn_pictures

NUM_CAPTIONS = 150
NUM_QUESTIONS = 240
REFERENCE_PX = 84
MAX_TOKENS = 120
"""As in params.yaml."""


def measure(job: Job) -> list[Figure]:
    """Caption scenes of two and of four, and answer questions."""
    captioner = Qwen2_5VL(job.zoo / "captioner")
    shots = track(islice(group_shots(job.seed, 2), NUM_CAPTIONS), NUM_CAPTIONS, "captions")
    pairs = [(truth, caption_of(captioner, pictures)) for truth, pictures in shots]
    once = [len(SUBJECT.findall(caption)) == len(SUBJECT.findall(truth)) for truth, caption in pairs]
    agreement = f1_scores(pairs)
    settings = scene_captions(captioner, job.seed, 2)
    clothes = f1_scores(settings)
    telling = [describes_people(caption) for _, caption in settings]
    crowds = scene_captions(captioner, job.seed, CROWD)
    crowd_once = [len(SUBJECT.findall(caption)) == CROWD for _, caption in crowds]
    answers = list(track(answered(captioner, drawn_pictures(job.seed), job.seed), NUM_QUESTIONS, "questions"))
    return [
        Figure("attribute_f1", *agreement["all"], "mentions", 0.85),
        *(Figure(f"{name}_f1", *agreement[name], "mentions", 0.85) for name in ATTRIBUTES),
        *(Figure(f"{name}_f1", *agreement[name], "mentions") for name in EXTRA),
        Figure("everybody_once", float(np.mean(once)), len(once), "captions", 0.95, ours=True),
        Figure("scene_form_shirt_colour_f1", *clothes["shirt_colour"], "mentions", 0.85, ours=True),
        Figure("scene_form_object_f1", *clothes["object"], "mentions", 0.85, ours=True),
        Figure("scene_form_describes_people", float(np.mean(telling)), len(telling), "captions", 0.01, below=True),
        Figure("crowd_everybody_once", float(np.mean(crowd_once)), len(crowds), "captions of four", 0.95, ours=True),
        Figure("crowd_shirt_colour_f1", *f1_scores(crowds)["shirt_colour"], "mentions", 0.85, ours=True),
        Figure("questions_right", float(np.mean(answers)), len(answers), "questions", 0.9),
    ]


def scene_captions(captioner: Qwen2_5VL, seed: int, count: int) -> list[tuple[str, str]]:
    """True captions of close shots of ``count`` people, and the captioner's in the form "scene"."""
    close = islice(group_shots(seed, count, "close"), NUM_CAPTIONS)
    drawn = track(close, NUM_CAPTIONS, f"captions of scenes of {count}")
    return [(truth, caption_of(captioner, pictures, "scene")) for truth, pictures in drawn]


def group_shots(seed: int, count: int, shots: ShotSize = "far") -> Iterator[tuple[str, list[np.ndarray]]]:
    """True captions with their images: face crops from a clip's first frame, then the square of its middle frame."""
    index = 0
    while True:
        rng = stream(seed, "captions", index)
        index += 1
        scene = sample_scene(rng, [sample_identity(rng) for _ in range(count)], framing=FRAMINGS[shots])
        initial, middle = (render(scene, part * CLIP.seconds, *FRAME) for part in (0.0, 0.5))
        window = square_window(np.stack([visible_box(person) for person in middle.people]), FRAME[1], FRAME[0])
        if window is None:
            continue  # the pipeline drops such clips
        faces = [face_crop(initial.rgb, person.face_box, REFERENCE_PX) for person in initial.people]
        yield describe_scene(scene), [*faces, cut_window(middle.rgb, window)]


def caption_of(captioner: Qwen2_5VL, pictures: list[np.ndarray], describe: Describe = "people") -> str:
    """The first, greedy answer for references and their target."""
    instruction = CAPTION_INSTRUCTIONS[describe].format(num_subjects=len(pictures) - 1)
    return captioner.answer(pictures, instruction, temperature=0.0, seed=0, max_tokens=MAX_TOKENS)


def answered(captioner: Qwen2_5VL, pictures: Pictures, seed: int) -> Iterator[bool]:
    """Whether yes/no questions about images are answered right."""
    rng = stream(seed, "choices", 0)
    for index in range(NUM_QUESTIONS):
        conversation = question(pictures, index % len(pictures.scenes), rng)
        answer = captioner.answer(
            conversation.pictures, conversation.instruction, temperature=0.0, seed=0, max_tokens=MAX_TOKENS
        )
        yield answer.strip(" .").lower() == conversation.answer
