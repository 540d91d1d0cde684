"""A second recogniser that evaluates training with the first: a vision transformer with CosFace (arXiv:1801.09414).

The pipeline never sees it. Nothing of the first is shared but the world and the way faces are spoiled: other people,
other images, another network, another loss. The logit of the true person is s (cos(theta) - m).
"""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from insightface.utils import face_align
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mcpipe.core.params import Params
from mcpipe.core.progress import track
from mcpipe.core.shards import whole_folder
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.scene import RenderedFrame, render, sample_scene
from zoo.build.data import ARC_SIZE, JITTER_SHARE, NAMESPACE, SECONDS
from zoo.build.face_nets import EMBEDDING, export_onnx
from zoo.build.face_recogniser import CURVES, FILE, MEAN, SCALE, People, altered
from zoo.build.training import FitParams, Loss, fit, half_precision, settle

SCENES, PEOPLE = 21, 22
"""Streams of the zoo's random numbers that nothing else draws from."""

FRAME_SIZE = (320, 240)
"""Width and height in pixels, as the clips."""

GROUP_SIZES = (1, 2, 3)
PATCH = 16
"""Side in pixels of the patch of one token."""


class FacesHeldoutRecogniserParams(Params):
    """Recipe of the second recogniser."""

    seed: int
    """Seed of the people and their images."""
    num_identities: int = Field(ge=3)
    """People to learn."""
    num_views: int = Field(ge=2)
    """Images of each."""
    width: int = Field(ge=16, multiple_of=16)
    """Width of a token."""
    layers: int = Field(ge=1)
    """Layers of the transformer."""
    heads: int = Field(ge=1)
    """Heads of its attention."""
    scale: float = Field(gt=0)
    """s."""
    margin: float = Field(ge=0)
    """m, of the cosine."""
    margin_steps: int = Field(ge=1)
    """Steps over which the margin rises from 0."""
    fit: FitParams


class TransformerRecogniser(nn.Module):
    """A small vision transformer behind four convolutions; its tokens are averaged."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        """A transformer of ``layers`` blocks on (112 / 16)^2 tokens."""
        super().__init__()
        channels = (3, width // 8, width // 4, width // 2, width)
        self.stem = nn.Sequential(*[
            part
            for inner, outer in zip(channels, channels[1:], strict=False)
            for part in (nn.Conv2d(inner, outer, 3, 2, 1, bias=False), nn.BatchNorm2d(outer), nn.GELU())
        ])  # fmt: skip
        self.places = nn.Parameter(0.02 * torch.randn(1, (ARC_SIZE // PATCH) ** 2, width))
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.out = nn.Sequential(nn.Linear(width, EMBEDDING, bias=False), nn.BatchNorm1d(EMBEDDING, affine=False))

    def forward(self, faces: Tensor) -> Tensor:
        """Embeddings (B, 512) of faces (B, 3, 112, 112) in [-1, 1]."""
        tokens = self.stem(faces).flatten(2).transpose(1, 2) + self.places
        return self.out(self.norm(self.blocks(tokens)).mean(dim=1))


class Block(nn.Module):
    """Attention, then a layer for every token."""

    def __init__(self, width: int, heads: int) -> None:
        """A block of ``heads`` heads."""
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.ask, self.answer = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.think = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """The tokens (B, N, width), refined."""
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.ask(self.norms[0](tokens)).chunk(3, -1)
        )
        seen = functional.scaled_dot_product_attention(queries, keys, values)
        tokens = tokens + self.answer(seen.transpose(1, 2).flatten(2))
        return tokens + self.think(self.norms[1](tokens))


def build(out: Path, params: FacesHeldoutRecogniserParams) -> None:
    """Draw people, train the recogniser, and write ``rec.onnx`` and the loss curves to the folder ``out``."""
    settle(params.fit.seed)
    crops = draw_faces(params)
    net = TransformerRecogniser(params.width, params.layers, params.heads)
    curves = train(net, crops, params, out.with_name(f"{out.name}.resume"))
    with whole_folder(out) as folder:
        export_onnx(net, torch.rand(1, 3, ARC_SIZE, ARC_SIZE), folder / FILE, "input.1", ["embedding"])
        (folder / CURVES).write_text(json.dumps(curves), encoding="utf-8")


def train(
    net: TransformerRecogniser, crops: np.ndarray, params: FacesHeldoutRecogniserParams, scratch: Path
) -> dict[str, list[float]]:
    """Train in place on faces (people, views, 112, 112, 3) and return the loss curves."""
    people = People(len(crops))

    def loss_of(step: int, rng: np.random.Generator) -> Loss:
        person = rng.integers(len(crops), size=params.fit.batch)
        faces = torch.from_numpy(crops[person, rng.integers(crops.shape[1], size=params.fit.batch)])
        seen = altered((faces.permute(0, 3, 1, 2).float() - MEAN) / SCALE, rng)
        with half_precision():
            embeddings = net(seen)
        cosines = people(embeddings.float())
        truth = torch.from_numpy(person)
        right = (cosines.detach().argmax(dim=1) == truth).float().mean()
        margin = params.margin * min(1.0, step / params.margin_steps)
        logits = params.scale * (cosines - margin * functional.one_hot(truth, len(crops)))
        return Loss(cosface=functional.cross_entropy(logits, truth), _right=right)

    return fit([net, people], loss_of, params.fit, scratch)


def draw_faces(params: FacesHeldoutRecogniserParams) -> np.ndarray:
    """Aligned faces (people, views, 112, 112, 3) of new people, who meet alone, in pairs and by three in turn."""
    cv2.setNumThreads(1)
    crops = np.zeros((params.num_identities, params.num_views, ARC_SIZE, ARC_SIZE, 3), np.uint8)
    for view in track(range(params.num_views), params.num_views, "faces for the held-out recogniser"):
        rng = world_rng(NAMESPACE, params.seed, SCENES, view)
        for people, frame in _meetings(rng, params, GROUP_SIZES[view % len(GROUP_SIZES)]):
            for index, person in zip(people, frame.people, strict=True):
                noise = rng.normal(0.0, JITTER_SHARE * 0.5 * person.head_height_px, (5, 2))
                landmarks = (person.landmarks + noise).astype(np.float32)
                crops[index, view] = face_align.norm_crop(frame.rgb, landmarks, ARC_SIZE)
    return crops


def _meetings(
    rng: np.random.Generator, params: FacesHeldoutRecogniserParams, size: int
) -> Iterator[tuple[list[int], RenderedFrame]]:
    """Everybody in one scene each, with the indices of the people in it from left to right."""
    order = rng.permutation(params.num_identities).tolist()
    for start in range(0, len(order), size):
        people = order[start : start + size]
        identities = [sample_identity(world_rng(NAMESPACE, params.seed, PEOPLE, index)) for index in people]
        scene = sample_scene(rng, identities)
        yield people, render(scene, float(rng.uniform(0.0, SECONDS)), *FRAME_SIZE)
