"""People and their places in an image, and heads that predict their attributes from a vision tower's tokens.

Words alone teach a vision tower slowly: a few attributes among many words that never change. So each person's part of
each image is also classified directly: every attribute asks the tokens of the columns around the face with a query
of its own. The heads are thrown away in the end.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mcpipe.world.captions import LASTING, VOCABULARY
from zoo.build.training import Loss

UNSEEN = -100
"""A class that counts for nothing (PyTorch's convention)."""

MERGE = 2
"""Patches per side of a visual token."""

REACH = 0.95
"""How far from the middle of a face its person reaches, in widths of the face: shoulders and what the hands hold."""


@dataclass(frozen=True)
class Sighting:
    """One person in one of several images."""

    picture: int
    left: float
    right: float
    """Columns that show the person, as shares of the image's width."""

    attributes: dict[str, str]
    """By name in `VOCABULARY`; what is absent cannot be seen."""


def in_reference(picture: int, attributes: dict[str, str]) -> Sighting:
    """A face that fills its image; a bald head's hair colour is not to be seen."""
    hidden = "hair_colour" if attributes["hair_cut"] == "bald" else ""
    return Sighting(picture, 0.0, 1.0, {name: attributes[name] for name in LASTING if name != hidden})


def in_scene(picture: int, face: tuple[float, float], attributes: dict[str, str]) -> Sighting:
    """A person in a scene, whose face covers the given share of the width."""
    bald = attributes["hair_cut"] == "bald"
    kept = {name: value for name, value in attributes.items() if not (bald and name == "hair_colour")}
    return Sighting(picture, max(face[0], 0.0), min(face[1], 1.0), kept)


class Heads(nn.Module):
    """One query and one classifier for each attribute."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.key = nn.LayerNorm(width), nn.Linear(width, width)
        self.query = nn.Parameter(0.02 * torch.randn(len(VOCABULARY), width))
        self.of = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in VOCABULARY.items()})

    def forward(self, pictures: Sequence[Tensor], sightings: Sequence[Sighting]) -> "Guesses":
        """Predicted attributes of everybody; ``pictures`` are tokens (rows, columns, width)."""
        parts = [_columns(pictures[sighting.picture], sighting) for sighting in sightings]
        tokens = self.norm(nn.utils.rnn.pad_sequence(parts, batch_first=True))
        lengths = torch.tensor([len(part) for part in parts])
        absent = torch.arange(tokens.shape[1])[None] >= lengths[:, None]
        scores = torch.einsum("nld,ad->nal", self.key(tokens), self.query) / tokens.shape[-1] ** 0.5
        shares = scores.masked_fill(absent[:, None], -torch.inf).softmax(dim=-1)
        attended = torch.einsum("nal,nld->nad", shares, tokens)
        logits = {name: head(attended[:, place]) for place, (name, head) in enumerate(self.of.items())}
        return Guesses({name: (guess, classes(name, sightings)) for name, guess in logits.items()})


class Guesses(dict[str, tuple[Tensor, Tensor]]):
    """Logits (sightings, classes) and true classes (sightings,) by attribute."""

    def loss(self) -> Loss:
        """Mean cross entropy over the visible attributes, 0 if there are none, and each of them for the log."""
        terms = {
            name: functional.cross_entropy(logits, true, ignore_index=UNSEEN)
            for name, (logits, true) in self.items()
            if (true != UNSEEN).any()
        }
        logged = {f"_{name}": term for name, term in terms.items()}
        mean = torch.stack(list(terms.values())).mean() if terms else torch.zeros(())
        return Loss(logged | {"sightings": mean})

    def hits(self) -> dict[str, list[bool]]:
        """For every attribute, of each sighting that shows it, whether the likeliest class is the true one."""
        return {name: (logits.argmax(dim=-1) == true)[true != UNSEEN].tolist() for name, (logits, true) in self.items()}


def _columns(picture: Tensor, sighting: Sighting) -> Tensor:
    """The tokens (length, width) of the columns whose middles lie within `REACH` face widths of the face's middle."""
    columns = picture.shape[1]
    middle, reach = 0.5 * (sighting.left + sighting.right), REACH * (sighting.right - sighting.left)
    first = min(math.ceil(max(middle - reach, 0.0) * columns - 0.5), columns - 1)
    last = max(math.floor(min(middle + reach, 1.0) * columns - 0.5), first)
    return picture[:, first : last + 1].flatten(0, 1)


def as_grids(tokens: Tensor, grids: Tensor) -> list[Tensor]:
    """The tokens of all images in a row, as the captioner's tower gives them, cut into (rows, columns, width)."""
    sizes = [(int(rows) // MERGE, int(columns) // MERGE) for _, rows, columns in grids.tolist()]
    pictures = tokens.split([rows * columns for rows, columns in sizes])
    return [picture.view(*size, -1) for picture, size in zip(pictures, sizes, strict=True)]


def classes(name: str, sightings: Sequence[Sighting]) -> Tensor:
    """The class of an attribute in each sighting."""
    values = VOCABULARY[name]
    return torch.tensor(
        [values.index(sighting.attributes[name]) if name in sighting.attributes else UNSEEN for sighting in sightings]
    )
