"""Which scenes of the zoo show four people, and how near the camera is."""

import numpy as np

from mcpipe.world.setting import Framing
from mcpipe.world.shots import FRAMINGS

CROWD = 4
"""Number of people of a crowd."""


def sample_framing(rng: np.random.Generator, close_share: float) -> Framing:
    """A close shot in a share of all cases, else a far one; nothing is drawn where the share is 0."""
    return FRAMINGS["close" if close_share and rng.random() < close_share else "far"]


def sample_crowded(rng: np.random.Generator, crowd_share: float) -> bool:
    """Whether a scene shows four people, in a share of all cases; nothing is drawn where the share is 0."""
    return bool(crowd_share) and rng.random() < crowd_share
