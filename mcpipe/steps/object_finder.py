"""Objects located by a phrase and cut out: what samples, rewards, scores and given references have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float, UInt8
from pydantic import Field

from mcpipe.core.params import Params
from mcpipe.curate.objects import best_box
from mcpipe.curate.samples import portrait
from mcpipe.curate.subjects import clean_masks
from mcpipe.models.grounders import load_grounder
from mcpipe.models.protocols import Grounder, Picture, Segmenter
from mcpipe.models.segmenter import Sam2

Box = Float[np.ndarray, " 4"]
MinScore = Annotated[float, Field(ge=0, le=1)]


class GroundingParams(Params):
    """How objects are located, everywhere alike; from the section ``grounding``."""

    min_score: MinScore
    """Certainty from which a box counts."""


@dataclass(frozen=True)
class ObjectModels:
    """Where the models lie that locate objects; `load` can be given others of the same protocols."""

    grounder: Path
    segmenter: Path
    load_grounder: Callable[[Path, float], Grounder] = load_grounder
    load_segmenter: Callable[[Path], Segmenter] = Sam2

    def finder(self, min_score: float, size: int) -> "ObjectFinder":
        """Load the models; crops have ``size`` pixels on a side.

        Raises:
            FileNotFoundError: a checkpoint is missing.
            ValueError: a checkpoint is damaged.
        """
        grounder = self.load_grounder(self.grounder, min_score)
        return ObjectFinder(grounder, self.load_segmenter(self.segmenter), min_score, size)


@dataclass(frozen=True)
class ObjectFinder:
    """Locates objects by their phrases and segments them."""

    grounder: Grounder
    segmenter: Segmenter
    min_score: float
    """Certainty from which a box counts, in [0, 1]."""
    size: int
    """Side of a crop in pixels."""

    def box(self, picture: Picture, phrase: str) -> Box | None:
        """The most certain box of a phrase; ``None`` if there is none."""
        return best_box(*self.boxes(picture, phrase), self.min_score)

    def boxes(self, picture: Picture, phrase: str) -> tuple[Float[np.ndarray, "N 4"], Float[np.ndarray, " N"]]:
        """Boxes of a phrase, and their certainties; those without a pixel of the image are left out."""
        boxes, scores = self.grounder.boxes(picture, phrase)
        inside = boxes.clip(0, [picture.shape[1], picture.shape[0]] * 2).astype(np.float32)
        has_area = (inside[:, 2:] > inside[:, :2]).all(axis=1)
        return inside[has_area], scores[has_area]

    def raw_masks(self, picture: Picture, boxes: Float[np.ndarray, "N 4"]) -> Bool[np.ndarray, "N H W"]:
        """One mask per box, neither cleaned nor disjoint."""
        return self.segmenter.masks(picture, boxes)

    def crops(self, picture: Picture, phrase: str) -> list[UInt8[np.ndarray, "S S 3"]]:
        """A square crop of every object that a phrase describes, white outside its mask; empty ones are left out."""
        boxes, scores = self.boxes(picture, phrase)
        cut = [self.cut(picture, box) for box in boxes[scores >= self.min_score]]
        return [crop for crop in cut if crop is not None]

    def crop(self, picture: Picture, phrase: str) -> UInt8[np.ndarray, "S S 3"] | None:
        """The crop of the most certain object that a phrase describes; ``None`` if none is located."""
        box = self.box(picture, phrase)
        return None if box is None else self.cut(picture, box)

    def cut(self, picture: Picture, box: Box) -> UInt8[np.ndarray, "S S 3"] | None:
        """The object in a box, on white, its longer side as long as the crop; ``None`` if its mask is empty."""
        (mask,) = clean_masks(self.raw_masks(picture, box[None]))
        return portrait(picture, mask, self.size) if mask.any() else None
