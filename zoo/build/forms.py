"""Captions of training scenes in both forms, "people" and "scene" (`mcpipe.world.captions`).

Models that score images have to read both: the pipeline's captions leave identities to the references by default, and
the paper's describe them.
"""

import numpy as np

from mcpipe.world.captions import SIDES
from zoo.build.pictures import Pictures

SCENE_SHARE = 0.5
"""Share of training captions in the form "scene"."""

PREFIX = {"people": "", "scene": "scene_"}
"""What stands before the figures of each form of captions."""


def caption_and_opposite(scene: dict, mirror: bool, rng: np.random.Generator) -> tuple[str, str | None]:
    """A caption of a scene, or of its mirror image, and the same of the opposite, which is false of the image.

    ``None`` stands for an opposite that is as true as the caption: of one person, or where no sides are mentioned.
    """
    if rng.random() < SCENE_SHARE:
        variant = int(rng.integers(len(scene["settings"])))
        texts = scene["settings"][variant], scene["mirrored_settings"][variant]
    else:
        texts = scene["caption"], scene["mirrored_caption"]
    right, wrong = reversed(texts) if mirror else texts
    return right, wrong if _names_sides(wrong) and wrong != right else None


def _names_sides(text: str) -> bool:
    """Whether a caption says who is on which side."""
    return any(side in text for count in (2, 3) for side in SIDES[count] if side not in SIDES[1])


def captions_by_form(pictures: Pictures) -> dict[str, list[str]]:
    """A caption of every square in each form, by the form's name.

    Raises:
        ValueError: the set was drawn without captions in the form "scene".
    """
    if not all(scene.get("settings") for scene in pictures.scenes):
        raise ValueError("the pictures have no captions in the form scene; set pictures.scene_captions and draw again")
    return {"people": pictures.captions(), "scene": [scene["settings"][0] for scene in pictures.scenes]}
