"""Thresholds by face recogniser, because recognisers differ in the range of their cosines."""

from typing import Annotated

from pydantic import Field

Cosine = Annotated[float, Field(ge=-1, le=1)]
PerRecogniser = Cosine | dict[str, Cosine]
"""A single number for all recognisers, or a number for each by the name of its pack's folder."""


def threshold_for(recogniser: str, thresholds: PerRecogniser, name: str) -> float:
    """The threshold of a recogniser; ``name`` is the parameter's name for the message.

    Raises:
        ValueError: the settings have no threshold for this recogniser.

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
