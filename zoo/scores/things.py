"""The zoo's image set of things, drawn for the scores."""

import dataclasses
import tempfile
from functools import cache, partial
from pathlib import Path

import numpy as np

from zoo.build.things import ThingPictures, read_things, write_things
from zoo.scores.draw import stream

NUM_SCENES = 128
NUM_THINGS, APPEARANCES = 60, 4
"""Things that appear several times."""


@cache
def drawn_things(seed: int) -> ThingPictures:
    """Scenes of one to three things with captions in both forms, and a gallery of things in several scenes."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sizes = NUM_SCENES, NUM_THINGS, APPEARANCES
        write_things(folder, partial(stream, seed, "things"), "test", sizes, scene_captions=1)
        stored = read_things(folder)
        fields = {field.name: getattr(stored, field.name) for field in dataclasses.fields(stored)}
        # The files go; what is mapped from them is copied.
        return ThingPictures(**{
            name: np.array(value) if isinstance(value, np.memmap) else value for name, value in fields.items()
        })  # fmt: skip
