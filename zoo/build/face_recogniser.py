"""The face recogniser: ArcFace (arXiv:1801.07698) on the world's people.

The logit of the true person is s cos(theta + m) instead of s cos(theta).
"""

import json
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder
from zoo.build.data import ARC_SIZE
from zoo.build.face_nets import EMBEDDING, FaceRecogniser, export_onnx
from zoo.build.training import FitParams, Loss, fit, half_precision, settle

FILE = "rec.onnx"
CURVES = "curves.json"

MEAN, SCALE = 127.5, 127.5
"""InsightFace's normalisation of a recogniser's input."""

SMALLEST_SIDE = 20
"""Least side in pixels to which a training face is shrunk before it is enlarged again."""

SOFT_SHARE = 0.6
"""Share of training faces that are shrunk so."""

GAIN = 0.12
"""Half-width of the random brightness of each colour."""

NOISE = 0.03
"""Largest standard deviation of added noise, against half the range of a pixel."""

SHIFT, TURN, ZOOM = 0.06, 0.08, 0.08
"""Half-widths of the random move (against the side), turn (radians) and zoom of a training face."""


class FaceRecogniserParams(Params):
    """Recipe of the face recogniser."""

    width: int = Field(ge=4)
    """Channels at half resolution."""
    narrow: int = Field(ge=1)
    """Channels before the last layer."""
    scale: float = Field(gt=0)
    """s."""
    margin: float = Field(ge=0)
    """m, in radians."""
    margin_steps: int = Field(ge=1)
    """Steps over which the margin rises from 0."""
    fit: FitParams


class People(nn.Module):
    """One direction per person to train on."""

    def __init__(self, count: int) -> None:
        """Random directions."""
        super().__init__()
        self.directions = nn.Parameter(0.02 * torch.randn(count, EMBEDDING))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Cosines (B, people)."""
        return functional.normalize(embeddings) @ functional.normalize(self.directions).T


def build(data: Path, out: Path, params: FaceRecogniserParams) -> None:
    """Train on the images in ``data`` and write ``rec.onnx`` and the loss curves to the folder ``out``."""
    scratch = out.with_name(f"{out.name}.resume")
    with whole_folder(out) as folder:
        curves = train_face_recogniser(data, folder / FILE, scratch, params)
        (folder / CURVES).write_text(json.dumps(curves), encoding="utf-8")


def train_face_recogniser(
    data: Path, file: Path, scratch: Path, params: FaceRecogniserParams
) -> dict[str, list[float]]:
    """Train on the faces of ``data``, write ``file`` and return the loss curves; ``scratch`` keeps the progress."""
    settle(params.fit.seed)
    with np.load(data / "faces.npz") as stored:
        crops = stored["crops"]
    net, people = FaceRecogniser(params.width, params.narrow), People(len(crops))
    net.to(memory_format=torch.channels_last)

    def loss_of(step: int, rng: np.random.Generator) -> Loss:
        person = rng.integers(len(crops), size=params.fit.batch)
        faces = torch.from_numpy(crops[person, rng.integers(crops.shape[1], size=params.fit.batch)])
        seen = altered((faces.permute(0, 3, 1, 2).float() - MEAN) / SCALE, rng)
        with half_precision():
            embeddings = net(seen.contiguous(memory_format=torch.channels_last))
        cosines = people(embeddings.float())
        truth = torch.from_numpy(person)
        margin = params.margin * min(1.0, step / params.margin_steps)
        right = (cosines.detach().argmax(dim=1) == truth).float().mean()
        logits = params.scale * with_margin(cosines, truth, margin)
        return Loss(arcface=functional.cross_entropy(logits, truth), _right=right)

    curves = fit([net, people], loss_of, params.fit, scratch)
    export_onnx(net, torch.rand(1, 3, ARC_SIZE, ARC_SIZE), file, "input.1", ["embedding"])
    return curves


def with_margin(cosines: Tensor, truth: Tensor, margin: float) -> Tensor:
    """The cosines, with the angle of the true person widened by the margin."""
    angle = torch.acos(cosines.clamp(-1 + 1e-6, 1 - 1e-6))
    mine = functional.one_hot(truth, cosines.shape[1]).bool()
    return torch.where(mine, torch.cos(angle + margin), cosines)


def altered(faces: Tensor, rng: np.random.Generator) -> Tensor:
    """Faces (B, 3, S, S) in [-1, 1] moved, softened, tinted and noisy, as detectors and generators deliver them."""
    count = len(faces)
    turn, zoom = rng.uniform(-TURN, TURN, count), 1.0 + rng.uniform(-ZOOM, ZOOM, count)
    move = np.zeros((count, 2, 3), np.float32)
    move[:, 0, 0] = move[:, 1, 1] = zoom * np.cos(turn)
    move[:, 1, 0] = zoom * np.sin(turn)
    move[:, 0, 1] = -move[:, 1, 0]
    move[:, :, 2] = 2.0 * rng.uniform(-SHIFT, SHIFT, (count, 2))
    grid = functional.affine_grid(torch.from_numpy(move), list(faces.shape), align_corners=False)
    seen = functional.grid_sample(faces, grid, padding_mode="reflection", align_corners=False)
    for part in np.array_split(rng.permutation(count)[: round(SOFT_SHARE * count)], 4):
        side = int(rng.integers(SMALLEST_SIDE, ARC_SIZE))
        small = functional.interpolate(seen[part], size=side, mode="area")
        seen[part] = functional.interpolate(small, size=seen.shape[-1], mode="bicubic", align_corners=False)
    gains = torch.from_numpy(1.0 + rng.uniform(-GAIN, GAIN, (count, 3, 1, 1)).astype(np.float32))
    noise = torch.from_numpy(rng.uniform(0, NOISE, (count, 1, 1, 1)).astype(np.float32)) * torch.randn(seen.shape)
    return ((seen + 1.0) * gains - 1.0 + noise).clamp(-1.0, 1.0)
