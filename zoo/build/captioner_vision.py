"""The captioner's vision tower, which learns to see before the whole learns to speak.

Heads classify every person in every image from the tower's tokens (`zoo.build.sightings`). Without the language
model a step costs a fraction, so that what is small (a cup in a hand, a beard) is learned in minutes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2VLImageProcessor
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel as VisionTower

from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder
from zoo.build.cards import Measured, write_measured
from zoo.build.conversations import Conversation, caption, numbered
from zoo.build.pictures import Pictures, read_pictures
from zoo.build.regions import PatchHeads
from zoo.build.sightings import MERGE, Heads, as_grids
from zoo.build.training import FitParams, Loss, batches, fit, half_precision, settle

FEWEST_PIXELS, MOST_PIXELS = 56 * 56, 65_000
"""Number of pixels of one image, in sums of squares of 28 x 28 pixels, each of which becomes one token."""

PICTURES = {
    "size": {"shortest_edge": FEWEST_PIXELS, "longest_edge": MOST_PIXELS},
    "patch_size": 14,
    "merge_size": MERGE,
    "temporal_patch_size": 2,
}
"""Settings of the image processor."""

HEADS = "heads.safetensors"


class VisionParams(Params):
    """Size and training of the tower."""

    fit: FitParams
    hidden: int
    """Width of the tower."""
    layers: int = Field(ge=2)
    """Layers of the tower; the last two see the whole image, the others windows."""
    out_hidden: int
    """Width of its tokens, and of the language model."""


def build(pictures: Path, out: Path, params: VisionParams) -> None:
    """Train on the images of conversations and write the tower's folder, with its heads beside it."""
    settle(params.fit.seed)
    train, test = read_pictures(pictures / "train"), read_pictures(pictures / "test")
    processor, tower = make_image_processor(), make_tower(params)
    heads, patches = Heads(params.out_hidden), PatchHeads(params.out_hidden)

    def loss_of(_: int, rng: np.random.Generator) -> Loss:
        conversations = [caption(train, int(row), rng) for row in rng.integers(0, len(train.scenes), params.fit.batch)]
        grids = grids_of(tower, processor, conversations)
        loss = heads(grids, numbered(conversations)).loss()
        return Loss(loss | {"patches": patches(*_targets(grids, conversations, train)).loss()["sightings"]})

    curves = fit([tower, heads, patches], loss_of, params.fit, out.with_suffix(".progress"))
    metrics = measure(tower, heads, processor, test)
    with whole_folder(out) as folder:
        tower.save_pretrained(folder)
        save_file(heads.state_dict(), folder / HEADS)
        write_measured(folder, Measured("captioner_vision", metrics, curves, params))


def make_image_processor() -> Qwen2VLImageProcessor:
    """The genuine image processing, for small images."""
    return Qwen2VLImageProcessor(**PICTURES)


def make_tower(params: VisionParams) -> VisionTower:
    """An untrained tower of the genuine architecture."""
    return VisionTower(
        Qwen2_5_VLVisionConfig(
            depth=params.layers,
            hidden_size=params.hidden,
            intermediate_size=2 * params.hidden,
            num_heads=4,
            patch_size=PICTURES["patch_size"],
            spatial_merge_size=MERGE,
            temporal_patch_size=2,
            window_size=112,
            out_hidden_size=params.out_hidden,
            fullatt_block_indexes=[params.layers - 2, params.layers - 1],
        )
    )


def read_tower(folder: Path) -> tuple[VisionTower, Heads]:
    """The tower and the heads that `build` wrote."""
    tower = VisionTower.from_pretrained(folder)
    heads = Heads(tower.config.out_hidden_size)
    heads.load_state_dict(load_file(folder / HEADS))
    return tower, heads


def grids_of(
    tower: VisionTower, processor: Qwen2VLImageProcessor, conversations: Sequence[Conversation]
) -> list[Tensor]:
    """The tokens (rows, columns, width) of all images of conversations."""
    inputs = processor(
        images=[picture for conversation in conversations for picture in conversation.pictures], return_tensors="pt"
    )
    with half_precision():
        tokens = tower(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
    return as_grids(tokens.float(), inputs["image_grid_thw"])


def _targets(
    grids: Sequence[Tensor], conversations: Sequence[Conversation], pictures: Pictures
) -> tuple[Tensor, Tensor]:
    """Tokens of the scenes among the images, and what their patches show."""
    tokens, classes = [], []
    ends = np.cumsum([len(conversation.pictures) for conversation in conversations])
    for conversation, end in zip(conversations, ends, strict=True):
        if conversation.target is not None:
            grid = grids[int(end) - 1]
            regions = conversation.target.regions(pictures, (grid.shape[0], grid.shape[1]))
            tokens.append(grid.flatten(0, 1))
            classes.append(torch.from_numpy(np.ascontiguousarray(regions)).flatten(0, 1))
    return torch.cat(tokens), torch.cat(classes)


@torch.no_grad()
def measure(tower: VisionTower, heads: Heads, processor: Qwen2VLImageProcessor, test: Pictures) -> dict[str, float]:
    """Share of people, each in a reference and in the target, with a correct attribute."""
    rng = np.random.default_rng(0)
    right: dict[str, list[bool]] = {}
    for part in batches(len(test.scenes), 16):
        rows = range(part.start, part.stop)
        conversations = [caption(test, row, rng) for row in rows]
        guesses = heads(grids_of(tower, processor, conversations), numbered(conversations))
        for name, hits in guesses.hits().items():
            right.setdefault(name, []).extend(hits)
    return {name: float(np.mean(hits)) for name, hits in right.items()}
