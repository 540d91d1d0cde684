"""Attributes of each patch of an image, and heads that predict them from a network's tokens.

A patch on a head has the attributes of heads, a patch below the chin those of clothes, a patch on a held object those
of the object; all others have none. Trained patch by patch, a network learns to bind words to places.
"""

import cv2
import numpy as np
from torch import Tensor, nn

from mcpipe.world.captions import VOCABULARY
from mcpipe.world.scene import OBJECT_LABEL
from zoo.build.crops import SQUARE
from zoo.build.pictures import COARSER, Pictures
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


def traits_of(pictures: Pictures, index: int, *, side: tuple[int, int]) -> np.ndarray:
    """Lasting traits as numbers (`zoo.build.scene_records.traits_vector`) of the heads that a square's patches show.

    Returns (rows, columns, traits), NaN where no head is.
    """
    scene, labels = pictures.scenes[index], pictures.labels[index]
    start = round(scene["left"] / COARSER)
    square = labels[:, start : start + SQUARE // COARSER]
    rows = COARSER * np.arange(labels.shape[0])[:, None]
    values = np.full((*side, len(scene["traits_vectors"][0])), np.nan)
    for seat, (face, traits) in enumerate(zip(scene["faces"], scene["traits_vectors"], strict=True)):
        head = (square == seat + 1) & (rows < face[3])
        share = cv2.resize(head.astype(np.float32), side[::-1], interpolation=cv2.INTER_AREA)
        values[share >= LEAST["head"]] = traits
    return values


def _class(name: str, attributes: dict[str, str]) -> int:
    """The class of an attribute; a bald head has no colour of hair."""
    if name == "hair_colour" and attributes["hair_cut"] == "bald":
        return UNSEEN
    return VOCABULARY[name].index(attributes[name])


class TraitHead(nn.Module):
    """Reads lasting traits as numbers off tokens."""

    def __init__(self, width: int, num_traits: int) -> None:
        super().__init__()
        self.norm, self.of = nn.LayerNorm(width), nn.Linear(width, num_traits)

    def forward(self, tokens: Tensor, traits: Tensor) -> Tensor:
        """Mean squared error on the tokens (..., width) whose traits (..., traits) are no NaN; 0 if there are none."""
        on_head = traits[..., 0].isfinite()
        if not on_head.any():
            return tokens.sum() * 0
        return (self.of(self.norm(tokens[on_head])) - traits[on_head]).square().mean()


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
