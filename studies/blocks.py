"""Scores of a study's arms as blocks of seeds and prompts, and the units over which their intervals are taken.

Every arm draws the same prompts from the same noise with each seed, so scores form a block of seeds and prompts, and
changes are paired. Seeds and units are resampled independently of each other: a claim has to hold for other trainings
and for other prompts or people. With three seeds, the first of these is only a coarse estimate.
"""

from collections.abc import Mapping, Sequence

from mcpipe.bench.intervals import Block, Units

Scores = Mapping[str, Mapping[str, Block]]
"""By arm and metric."""


def sampled_units(prompts: Sequence[str], kind: str) -> Units:
    """The units of prompts: ``prompt`` for themselves, ``identity`` for the faces that a key joins by ``+``."""
    return [[prompt] if kind == "prompt" else prompt.split("+") for prompt in prompts]
