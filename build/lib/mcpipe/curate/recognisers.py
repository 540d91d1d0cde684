"""Thresholds that belong to a face recogniser: what one calls alike is a coincidence to another."""

from typing import Annotated

from pydantic import Field

Cosine = Annotated[float, Field(ge=-1, le=1)]
PerRecogniser = Cosine | dict[str, Cosine]
"""One number for whatever recogniser is used, or one for each by the name of its pack's folder."""


def threshold_for(recogniser: str, thresholds: PerRecogniser, name: str) -> float:
    """The threshold of a recogniser; ``name`` is the parameter's, for the message.

    Raises:
        ValueError: none is known.

    """
    if isinstance(thresholds, float | int):
        return float(thresholds)
    if recogniser not in thresholds:
        known = ", ".join(sorted(thresholds)) or "none"
        raise ValueError(
            f"{name} has no threshold for the face pack {recogniser!r} (it has: {known}); measure the cosines of same "
            "and different people with this pack and add one under its name"
        )
    return thresholds[recogniser]
