"""Pairs of images and texts about things (`zoo.build.things`), for the models that compare the two."""

import cv2
import numpy as np

from zoo.build.crops import on_white
from zoo.build.things import ThingPictures

ALONE_SHARE = 0.5
"""Share of pairs of one thing alone with its description; the others are scenes with a caption."""

NAMES_SHARE = 0.4
"""Share of the captions of scenes that only name the things."""


def thing_texts(things: ThingPictures) -> list[str]:
    """Every sentence of the set: what tokenizers learn from."""
    kinds = ("settings", "mirrored_settings", "invented", "invented_settings", "things", "phrases")
    return [
        text
        for scene in things.scenes
        for text in (scene["caption"], scene["mirrored_caption"], *(text for kind in kinds for text in scene[kind]))
    ]


def thing_pairs(
    things: ThingPictures, squares: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[str], list[str]]:
    """Images of the size of ``squares``, their texts, and texts that are false of them.

    ``squares`` are all frames of the set at the models' size, (N, S, S, 3). The false texts are captions of mirrored
    scenes that name sides.
    """
    images, texts, wrong = [], [], []
    for index in rng.integers(0, len(squares), count):
        scene, mirror = things.scenes[index], bool(rng.random() < 0.5)
        if rng.random() < ALONE_SHARE:
            seat = int(rng.integers(len(scene["things"])))
            image = on_white(things.references[scene["first_reference"] + seat], rng)
            image = cv2.resize(image, squares.shape[1:3], interpolation=cv2.INTER_LINEAR)
            texts.append(scene["things" if rng.random() < NAMES_SHARE else "phrases"][seat])
        else:
            image = squares[index]
            captions = _captions(scene, rng)
            right, false = reversed(captions) if mirror else captions
            texts.append(right)
            wrong += [false] if false != right and " on the left " in false else []
        images.append(image[:, ::-1] if mirror else image)
    return images, texts, wrong


def _captions(scene: dict, rng: np.random.Generator) -> tuple[str, str]:
    """A caption of a scene and of its mirror image, in one of the two forms."""
    if rng.random() < NAMES_SHARE:
        variant = int(rng.integers(len(scene["settings"])))
        return scene["settings"][variant], scene["mirrored_settings"][variant]
    return scene["caption"], scene["mirrored_caption"]
