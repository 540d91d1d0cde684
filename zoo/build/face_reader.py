"""A reader of faces in the autoencoder's latents, whose features say how alike a drawn face and the true one look.

Squared errors of latents settle for a blurred average where a detail's place is uncertain; the features of a network
that has learned to tell people apart do not (perceptual losses, arXiv:1603.08155; on latents, arXiv:2405.05967). The
reader learns lasting traits as words and numbers and serves the generator's training alone. Scores never see it: their
recognisers are other networks, trained on pixels and on other people.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from mcpipe.core.params import Params
from mcpipe.world.captions import LASTING, VOCABULARY
from zoo.build.crops import SQUARE
from zoo.build.pictures import Pictures
from zoo.build.training import FitParams, Loss, fit

SIDE = 12
"""Rows and columns of a face as it is read."""

MARGIN = 1.35
"""Side of the region that is read, in sides of the face's box."""

SHIFT, ZOOM = 0.06, 0.12
"""Half-widths of the random move and zoom of regions in training, in sides of the region."""

NOISE = 0.4
"""Largest standard deviation of noise on training faces; that of latents is 1."""

MIXED_SHARE = 0.5
"""Share of training faces that are blurred."""


class FaceReaderParams(Params):
    """Size of the reader and its training."""

    width: int = Field(ge=8)
    """Channels of the first layer; the following ones have twice and three times as many."""
    fit: FitParams


@dataclass(frozen=True)
class Faces:
    """Regions of faces in a batch of images."""

    images: Tensor
    """(faces,) number of the image in the batch."""
    boxes: Tensor
    """(faces, 4) x0, y0, x1, y1 of the region, in shares of the image's side."""

    def __len__(self) -> int:
        return len(self.images)


def regions(pictures: Pictures) -> Tensor:
    """Regions of all faces, (2 N, people, 4) as in `Faces`: images as they are, then mirrored; NaN where nobody is."""
    most = max(len(scene["faces"]) for scene in pictures.scenes)
    boxes = np.full((len(pictures.scenes), most, 4), np.nan, np.float32)
    for index, scene in enumerate(pictures.scenes):
        faces = np.array(scene["faces"], np.float32) / SQUARE
        middle, half = (faces[:, :2] + faces[:, 2:]) / 2, MARGIN / 2 * (faces[:, 2:] - faces[:, :2])
        boxes[index, : len(faces)] = np.concatenate([middle - half, middle + half], axis=1)
    mirrored = boxes[..., [2, 1, 0, 3]].copy()
    mirrored[..., [0, 2]] = 1 - mirrored[..., [0, 2]]
    return torch.from_numpy(np.concatenate([boxes, mirrored]))


def faces_of(boxes: Tensor) -> Faces:
    """The regions of a batch of images (B, people, 4) without those of nobody."""
    images, people = torch.nonzero(boxes[..., 0].isfinite(), as_tuple=True)
    return Faces(images, boxes[images, people])


class FaceReader(nn.Module):
    """Reads faces of 12 x 12 latents."""

    def __init__(self, channels: int, width: int, num_traits: int) -> None:
        """An untrained reader of latents with ``channels`` channels."""
        super().__init__()
        widths = (width, 2 * width, 3 * width)
        self.levels = nn.ModuleList(
            nn.Sequential(_level(before, after, stride), _level(after, after, 1))
            for before, after, stride in zip((channels, *widths), widths, (1, 2, 2), strict=False)
        )
        flat = widths[-1] * (SIDE // 4) ** 2
        self.summary = nn.Sequential(nn.Flatten(), nn.Linear(flat, 128), nn.SiLU())
        self.words = nn.ModuleDict({name: nn.Linear(128, len(VOCABULARY[name])) for name in LASTING})
        self.numbers = nn.Linear(128, num_traits)

    def features(self, crops: Tensor) -> list[Tensor]:
        """Features (faces, channels, rows, columns) after every level, and the summary (faces, 128), in this order."""
        features = []
        for level in self.levels:
            crops = level(crops)
            features.append(crops)
        return [*features, self.summary(crops)]

    def distance(self, drawn: Tensor, true: Tensor) -> Tensor:
        """Mean squared difference of unit-length features over all levels, (faces,), in [0, 4]."""
        with torch.no_grad():
            targets = self.features(true)
        levels = [
            (functional.normalize(first, dim=1) - functional.normalize(second, dim=1)).square().sum(dim=1)
            for first, second in zip(self.features(drawn), targets, strict=True)
        ]
        return torch.stack([level.flatten(1).mean(dim=1) if level.ndim > 1 else level for level in levels]).mean(dim=0)


def _level(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.GroupNorm(8, after), nn.SiLU()
    )  # fmt: skip


def cut(latents: Tensor, faces: Faces) -> Tensor:
    """The regions of unpacked latents (B, channels, rows, columns) as (faces, channels, 12, 12)."""
    boxes = torch.cat([faces.images[:, None].to(latents.dtype), faces.boxes * latents.shape[-1]], dim=1)
    return roi_align(latents, boxes, (SIDE, SIDE), sampling_ratio=2, aligned=True)


def train_reader(
    latents: Tensor, boxes: Tensor, pictures: Pictures, params: FaceReaderParams, scratch: Path
) -> FaceReader:
    """A reader for the faces of unpacked latents (2 N, channels, rows, columns): images as they are, then mirrored.

    ``boxes`` are those of `regions`.
    """
    scenes = pictures.scenes
    torch.manual_seed(params.fit.seed)
    reader = FaceReader(latents.shape[1], params.width, len(scenes[0]["traits_vectors"][0]))
    everybody = faces_of(boxes)
    people = (torch.cumsum(boxes[..., 0].isfinite(), dim=1) - 1)[boxes[..., 0].isfinite()].tolist()
    owners = [(scenes[image % len(scenes)], person) for image, person in zip(everybody.images, people, strict=True)]
    numbers = torch.tensor([scene["traits_vectors"][person] for scene, person in owners])
    words = {
        name: torch.tensor([VOCABULARY[name].index(scene["attributes"][person][name]) for scene, person in owners])
        for name in LASTING
    }

    def loss_of(_: int, rng: np.random.Generator) -> Loss:
        rows = torch.from_numpy(rng.integers(0, len(everybody), params.fit.batch))
        images = latents[everybody.images[rows]].float()
        moved = Faces(torch.arange(len(rows)), _moved(everybody.boxes[rows]))
        summary = reader.features(_worn(cut(images, moved)))[-1]
        guesses = {name: functional.cross_entropy(reader.words[name](summary), words[name][rows]) for name in LASTING}
        right = [(reader.words[name](summary).argmax(dim=1) == words[name][rows]).float().mean() for name in LASTING]
        squared = (reader.numbers(summary) - numbers[rows]).square().mean()
        return Loss(words=torch.stack(list(guesses.values())).mean(), numbers=squared, _right=torch.stack(right).mean())

    fit([reader], loss_of, params.fit, scratch)
    return reader.requires_grad_(False)


def _moved(boxes: Tensor) -> Tensor:
    """Regions moved and zoomed at random."""
    sides = boxes[:, 2:] - boxes[:, :2]
    middle = (boxes[:, 2:] + boxes[:, :2]) / 2 + sides * SHIFT * (2 * torch.rand_like(sides) - 1)
    half = sides / 2 * (1 + ZOOM * (2 * torch.rand(len(boxes), 1) - 1))
    return torch.cat([middle - half, middle + half], dim=1)


def _worn(crops: Tensor) -> Tensor:
    """Faces as a generator draws them before it is done: some blurred, all with some noise."""
    blurred = functional.avg_pool2d(crops, 3, stride=1, padding=1, count_include_pad=False)
    share = torch.rand(len(crops), 1, 1, 1) * (torch.rand(len(crops), 1, 1, 1) < MIXED_SHARE)
    return torch.lerp(crops, blurred, share) + NOISE * torch.rand(len(crops), 1, 1, 1) * torch.randn_like(crops)
