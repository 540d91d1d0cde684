"""Attributes of each patch of an image, and heads that predict them from a network's tokens.

A patch on a head has the attributes of heads, a patch below the chin those of clothes, a patch on a held object those
of the object; all others have none. Trained patch by patch, a network learns to bind words to places.
"""

import cv2
import numpy as np
from torch import Tensor, nn

from mcpipe.world.captions import VOCABULARY
from mcpipe.world.scene import OBJECT_LABEL
from zoo.build.pictures import COARSER, SQUARE, Pictures
from zoo.build.sightings import UNSEEN, Guesses

PARTS = {
    "head": ("skin", "hair_cut", "hair_colour", "facial_hair", "glasses"),
    "clothes": ("shirt_colour", "shirt_pattern"),
    "object": ("object", "object_colour"),
}
"""Parts of a person that a patch can show, and their attributes."""

LEAST = {"head": 0.5, "clothes": 0.5, "object": 0.25}
"""Part of the patch that has to show it."""

NAMES = tuple(VOCABULARY)


def regions_of(pictures: Pictures, index: int, *, cropped: bool, side: tuple[int, int]) -> np.ndarray:
    """Classes (rows, columns, attributes) of the patches of a frame or its square, `UNSEEN` without an attribute."""
    scene = pictures.scenes[index]
    left, labels = scene["left"], pictures.labels[index]
    rows, columns = COARSER * np.arange(labels.shape[0])[:, None], COARSER * np.arange(labels.shape[1])
    inside = (columns >= left) & (columns < left + SQUARE)
    classes = np.full((*side, len(NAMES)), UNSEEN, np.int64)
    for seat, (face, attributes) in enumerate(zip(scene["faces"], scene["attributes"], strict=True)):
        above = rows < face[3]
        parts = {
            "head": (labels == seat + 1) & above,
            "clothes": (labels == seat + 1) & ~above,
            "object": labels == seat + 1 + OBJECT_LABEL,
        }
        for part, mask in parts.items():
            visible = mask[:, inside] if cropped else mask
            share = cv2.resize(visible.astype(np.float32), side[::-1], interpolation=cv2.INTER_AREA)
            for name in PARTS[part]:
                classes[share >= LEAST[part], NAMES.index(name)] = _class(name, attributes)
    return classes


def _class(name: str, attributes: dict[str, str]) -> int:
    """The class of an attribute; a bald head has no colour of hair."""
    if name == "hair_colour" and attributes["hair_cut"] == "bald":
        return UNSEEN
    return VOCABULARY[name].index(attributes[name])


class PatchHeads(nn.Module):
    """One classifier for each attribute, the same for all tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.of = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in VOCABULARY.items()})

    def forward(self, tokens: Tensor, classes: Tensor) -> Guesses:
        """Guesses from tokens (..., width) whose true classes are (..., attributes)."""
        tokens, classes = self.norm(tokens.flatten(0, -2)), classes.flatten(0, -2)
        guesses = {}
        for place, name in enumerate(NAMES):
            labelled = classes[:, place] != UNSEEN
            guesses[name] = (self.of[name](tokens[labelled]), classes[labelled, place])
        return Guesses(guesses)
