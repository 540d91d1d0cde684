"""The zoo's kind of image set, drawn for the scores."""

import dataclasses
import tempfile
from functools import cache, partial
from pathlib import Path

import numpy as np

from mcpipe.world.identities import world_rng
from zoo.build.pictures import Look, Pictures, read_pictures, write_pictures
from zoo.scores.draw import NAMESPACE

NUM_SCENES = 256
NUM_PEOPLE, APPEARANCES = 60, 4
"""People who appear several times."""


@cache
def drawn_pictures(seed: int, close_share: float = 0.0) -> Pictures:
    """Scenes of one to three people with a caption in each form, and a gallery of people in several scenes.

    A share ``close_share`` of the scenes, in [0, 1], are close shots.
    """
    look = Look(close_share=close_share, scene_captions=1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_pictures(folder, partial(world_rng, NAMESPACE, seed), "test", (NUM_SCENES, NUM_PEOPLE, APPEARANCES), look)
        stored = read_pictures(folder)
        fields = {field.name: getattr(stored, field.name) for field in dataclasses.fields(stored)}
        # The files go; what is mapped from them is copied.
        return Pictures(**{
            name: np.array(value) if isinstance(value, np.memmap) else value for name, value in fields.items()
        })  # fmt: skip
