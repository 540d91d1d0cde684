"""How near the camera is to the people of a clip, and how far apart they stand in wide frames."""

from dataclasses import replace
from typing import Literal

from mcpipe.world.setting import CLOSE, FAR, HEAD_HEIGHT_RANGES, SPACING_RANGES, Framing

WIDE_HEAD_HEIGHT_RANGES = HEAD_HEIGHT_RANGES | {2: (0.28, 0.38)}
"""Chin to crown of wide shots, drawn for each person."""

WIDE_SPACING_RANGES = SPACING_RANGES | {2: (2.6, 5.0)}
"""Distance of the heads of a wide shot in the mean radius, from neighbours to an empty place between them."""

WIDE_CROWN_RANGE = (0.08, 0.25)
"""Height of the crown below the top of the frame in wide shots."""

WIDE_MIDDLE_RANGE = (-0.45, 0.45)
"""Offset of the group in wide shots: up to an edge of a 16:9 frame."""

LEAST_WIDE_ASPECT = 16 / 9
"""Minimum ratio of width to height of a frame of wide shots."""

WIDE = replace(
    FAR,
    head_heights=WIDE_HEAD_HEIGHT_RANGES,
    one_size=False,
    spacings=WIDE_SPACING_RANGES,
    crowns=WIDE_CROWN_RANGE,
    middles=WIDE_MIDDLE_RANGE,
)
CROWD_HEAD_HEIGHT_RANGES = {4: (0.20, 0.22), 5: (0.17, 0.18)}
"""Chin to crown of four and five people, in shots of every size."""

CROWD_SPACING_RANGES = {4: (2.2, 2.45), 5: (2.1, 2.3)}
"""Distance of their heads in head radii."""


def _with_crowds(framing: Framing) -> Framing:
    """The same for up to five people."""
    return replace(
        framing,
        head_heights={**framing.head_heights, **CROWD_HEAD_HEIGHT_RANGES},
        spacings={**framing.spacings, **CROWD_SPACING_RANGES},
    )


ShotSize = Literal["far", "close", "wide"]
FRAMINGS: dict[ShotSize, Framing] = {
    "far": _with_crowds(FAR), "close": _with_crowds(CLOSE), "wide": _with_crowds(WIDE),
}  # fmt: skip
