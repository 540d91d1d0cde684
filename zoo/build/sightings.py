"""Who is where in the pictures shown to the captioner, and heads that read it off the vision tower while training.

Words alone teach the vision tower slowly: a few attributes among many words that never change. So each person's part
of each picture is also classified directly, from the mean of the visual tokens of the columns it covers. The heads are
thrown away in the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mcpipe.world.captions import VOCABULARY

LASTING = ("skin", "hair_cut", "hair_colour", "facial_hair", "glasses")
"""Attributes that a face crop shows."""

UNSEEN = -100
"""A class that counts for nothing (PyTorch's convention)."""

MERGE = 2
"""Patches per side of a visual token."""


@dataclass(frozen=True)
class Sighting:
    """One person in one of several pictures."""

    picture: int
    left: float
    right: float
    """Columns that show the person, as shares of the picture's width."""

    attributes: dict[str, str]
    """By name in `VOCABULARY`; what is absent cannot be seen."""


def in_reference(picture: int, attributes: dict[str, str]) -> Sighting:
    """A face that fills its picture; a bald head's hair colour is not to be seen."""
    hidden = "hair_colour" if attributes["hair_cut"] == "bald" else ""
    return Sighting(picture, 0.0, 1.0, {name: attributes[name] for name in LASTING if name != hidden})


def in_scene(picture: int, face: tuple[float, float], attributes: dict[str, str]) -> Sighting:
    """A person in a scene, whose face covers the given share of the width."""
    bald = attributes["hair_cut"] == "bald"
    kept = {name: value for name, value in attributes.items() if not (bald and name == "hair_colour")}
    return Sighting(picture, max(face[0], 0.0), min(face[1], 1.0), kept)


class Heads(nn.Module):
    """One classifier for each attribute."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.of = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in VOCABULARY.items()})

    def forward(self, tokens: Tensor, grids: Tensor, sightings: Sequence[Sighting]) -> Tensor:
        """Mean cross entropy over the attributes; ``tokens`` of all pictures in a row, ``grids`` as the processor's."""
        people = self.norm(pooled(tokens, grids, sightings))
        losses = [
            functional.cross_entropy(head(people), classes(name, sightings), ignore_index=UNSEEN)
            for name, head in self.of.items()
            if any(name in sighting.attributes for sighting in sightings)
        ]
        return torch.stack(losses).mean()


def pooled(tokens: Tensor, grids: Tensor, sightings: Sequence[Sighting]) -> Tensor:
    """The mean token of each sighting's columns, (sightings, width)."""
    sizes = [(int(rows) // MERGE, int(columns) // MERGE) for _, rows, columns in grids.tolist()]
    pictures = tokens.split([rows * columns for rows, columns in sizes])
    means = []
    for sighting in sightings:
        rows, columns = sizes[sighting.picture]
        first = min(int(sighting.left * columns), columns - 1)
        last = max(round(sighting.right * columns), first + 1)
        means.append(pictures[sighting.picture].view(rows, columns, -1)[:, first:last].mean(dim=(0, 1)))
    return torch.stack(means)


def classes(name: str, sightings: Sequence[Sighting]) -> Tensor:
    """The class of an attribute in each sighting."""
    values = VOCABULARY[name]
    return torch.tensor(
        [values.index(sighting.attributes[name]) if name in sighting.attributes else UNSEEN for sighting in sightings]
    )
