"""Training data of the tiny SDXL: latents of squares and portraits, texts, and features of single faces."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from torch import Tensor

from mcpipe.core.progress import track
from mcpipe.sdxl.encoders import encode_pictures
from zoo.build.crops import SQUARE, on_white
from zoo.build.generator_text import portrait_caption
from zoo.build.pictures import Pictures
from zoo.build.regions import traits_of
from zoo.build.training import batches

NUM_SLOTS = 2
"""References of an image at most; scenes of more people are left out."""
SIDE = 12
"""Rows and columns of tokens of an image, 2 x 2 latents each: the grid of the UNet's finest attention."""
GROWTH = 0.2
"""Growth of a face's box on every side, in the square root of its area (`dip.growth` of focusdpo/params.yaml)."""
HALF_SHARE = 0.5
"""Share of the images of two people whose references are seen in one half each; in the others, in the grown faces."""
ENCODED_TOGETHER = 32
ANYBODY = "a person"
"""Whom the caption of a close-up names: its reference says who it is."""


@dataclass(frozen=True)
class Batch:
    """Images with their conditions."""

    latents: Tensor
    """(B, channels, rows, columns) as the UNet expects them."""
    text: Tensor
    """(B, 77, width) tokens of both text encoders."""
    pooled: Tensor
    """(B, width) pooled embedding of the second one."""
    features: Tensor
    """(B, slots, image tokens, width) features of references; zeros in slots without one."""
    regions: Tensor
    """(B, slots, SIDE, SIDE) where each reference is seen, 0 or 1."""
    traits: Tensor
    """(B, SIDE * SIDE, traits) lasting traits of whoever's head a token shows, NaN elsewhere."""
    owners: Tensor
    """(B, slots, traits) lasting traits of whom each reference shows, NaN in slots without one."""


class Examples:
    """Everything encoded once, with the pipeline's own encoders: some squares and as many portraits."""

    def __init__(
        self, pictures: Pictures, pipeline: StableDiffusionXLPipeline, count: int, size: int, reference_size: int
    ) -> None:
        """Encode ``count`` scenes of one or two people at ``size`` pixels, their references at ``reference_size``."""
        rng = np.random.default_rng(0)
        few = [row for row, scene in enumerate(pictures.scenes) if len(scene["people"]) <= NUM_SLOTS][:count]
        scenes = [pictures.scenes[row] for row in few]
        mirrored = rng.random(len(few)) < 0.5
        squares = [shrunk(pictures.square(row), size, turn=turn) for row, turn in zip(few, mirrored, strict=True)]
        traits = [_turned(traits_of(pictures, row, side=(SIDE, SIDE)), turn)
                  for row, turn in zip(few, mirrored, strict=True)]  # fmt: skip
        captions = [text for scene, turn in zip(scenes, mirrored, strict=True) for text in _captions(scene, turn)]
        self._regions = torch.from_numpy(
            np.stack([regions_of(scene, turn) for scene, turn in zip(scenes, mirrored, strict=True)])
        )
        places = [scene["first_reference"] + min(slot, len(scene["people"]) - 1)
                  for scene in scenes for slot in range(NUM_SLOTS)]  # fmt: skip
        crops = [pictures.references[place] for place in places]
        references = [shrunk(on_white(four, rng), reference_size, turn=bool(rng.random() < 0.5)) for four in crops]
        portraits = [shrunk(four[..., :3], size, turn=bool(rng.random() < 0.5)) for four in crops]
        self._counts = torch.tensor([len(scene["people"]) for scene in scenes])
        self._traits = torch.from_numpy(np.stack(traits).astype(np.float32)).flatten(1, 2)
        owners = [scene["traits_vectors"][min(slot, len(scene["people"]) - 1)]
                  for scene in scenes for slot in range(NUM_SLOTS)]  # fmt: skip
        self._owners = torch.tensor(owners, dtype=torch.float32).unflatten(0, (-1, NUM_SLOTS))
        self._latents, self._portraits = latents_of(pipeline, squares), latents_of(pipeline, portraits)
        self._text, self._pooled = (each.unflatten(0, (len(scenes), -1)) for each in texts_of(pipeline, captions))
        self._said, self._said_pooled = texts_of(pipeline, [portrait_caption(ANYBODY)])
        self._features = features_of(pipeline, references).unflatten(0, (-1, NUM_SLOTS))
        (self.no_text,), (self.no_pooled,) = texts_of(pipeline, [""])
        self.no_reference = features_of_none(pipeline)

    def scenes(self, rng: np.random.Generator, count: int) -> Batch:
        """Scenes of one or two people with a reference of everybody."""
        rows = torch.from_numpy(rng.integers(0, len(self._latents), count))
        variants = torch.from_numpy(rng.integers(0, self._text.shape[1], count))
        present = torch.arange(NUM_SLOTS) < self._counts[rows, None]
        halves = torch.from_numpy((rng.random(count) < HALF_SHARE).astype(int))
        return Batch(
            self._latents[rows].float(),
            self._text[rows, variants].float(),
            self._pooled[rows, variants].float(),
            self._features[rows].float() * present[..., None, None],
            self._regions[rows, halves].float(),
            self._traits[rows],
            torch.where(present[..., None], self._owners[rows], torch.nan),
        )

    def portraits(self, rng: np.random.Generator, count: int) -> Batch:
        """Single faces close by; the reference, which is another crop's size and light, is seen everywhere."""
        rows = torch.from_numpy(rng.integers(0, len(self._portraits), count))
        only = (torch.arange(NUM_SLOTS) == 0).float()
        owners = torch.where(only[:, None] > 0, self._owners.flatten(0, 1)[rows, None], torch.nan)
        return Batch(
            self._portraits[rows].float(),
            self._said.float().expand(count, -1, -1),
            self._said_pooled.float().expand(count, -1),
            self._features.flatten(0, 1)[rows, None].float() * only[:, None, None],
            only[:, None, None].expand(count, -1, SIDE, SIDE),
            torch.full((count, SIDE * SIDE, owners.shape[-1]), torch.nan),
            owners,
        )

    def without_some(self, batch: Batch, share: float, rng: np.random.Generator) -> Batch:
        """The batch with a share of the texts empty and a share of the references unseen, as guidance needs them."""
        count = len(batch.latents)
        silent, blind = (torch.from_numpy(rng.random(count) < share) for _ in range(2))
        return Batch(
            batch.latents,
            torch.where(silent[:, None, None], self.no_text.float(), batch.text),
            torch.where(silent[:, None], self.no_pooled.float(), batch.pooled),
            torch.where(blind[:, None, None, None], self.no_reference.float(), batch.features),
            batch.regions,
            batch.traits,
            torch.where(blind[:, None, None], torch.nan, batch.owners),
        )


def regions_of(scene: dict, turn: bool) -> np.ndarray:
    """Where references are seen, (2, slots, SIDE, SIDE): in their grown faces, in their halves; one everywhere."""
    regions = np.zeros((2, NUM_SLOTS, SIDE, SIDE), bool)
    boxes = np.array(scene["faces"]) / SQUARE * SIDE
    if turn:
        boxes[:, [0, 2]] = SIDE - boxes[:, [2, 0]]
    if len(boxes) == 1:
        regions[:, 0] = True
        return regions
    middles = boxes[:, [0, 2]].mean(1)
    border = int(np.clip(round(middles.mean()), 2, SIDE - 2))
    for slot, box in enumerate(boxes):
        growth = GROWTH * float(np.sqrt(np.prod(box[2:] - box[:2])))
        x0, y0 = np.floor(box[:2] - growth).astype(int).clip(0, SIDE - 1)
        x1, y1 = np.ceil(box[2:] + growth).astype(int).clip(1, SIDE)
        regions[0, slot, y0:y1, x0:x1] = True
        left = middles[slot] == middles.min()
        regions[1, slot, :, slice(0, border) if left else slice(border, SIDE)] = True
    return regions


def shrunk(picture: np.ndarray, size: int, *, turn: bool) -> np.ndarray:
    """An image at another size, mirrored or not."""
    changed = cv2.resize(np.ascontiguousarray(picture), (size, size), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(changed[:, ::-1]) if turn else changed


def latents_of(pipeline: StableDiffusionXLPipeline, pictures: Sequence[np.ndarray]) -> Tensor:
    """Latents of images in float16."""
    parts = track(list(batches(len(pictures), ENCODED_TOGETHER)), -(-len(pictures) // ENCODED_TOGETHER), "encoding")
    return torch.cat([encode_pictures(pipeline, np.stack(pictures[part])).half() for part in parts])


@torch.no_grad()
def texts_of(pipeline: StableDiffusionXLPipeline, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Tokens and pooled embeddings of texts in float16."""
    parts = track(list(batches(len(texts), ENCODED_TOGETHER)), -(-len(texts) // ENCODED_TOGETHER), "reading")
    both = [pipeline.encode_prompt(list(texts[part]), do_classifier_free_guidance=False) for part in parts]
    return torch.cat([each[0] for each in both]).half(), torch.cat([each[2] for each in both]).half()


@torch.no_grad()
def features_of(pipeline: StableDiffusionXLPipeline, references: Sequence[np.ndarray]) -> Tensor:
    """What an IP-Adapter Plus reads of references, in float16."""
    parts = track(list(batches(len(references), ENCODED_TOGETHER)), -(-len(references) // ENCODED_TOGETHER), "looking")
    images = [Image.fromarray(reference) for reference in references]
    features = [pipeline.encode_image(images[part], "cpu", 1, output_hidden_states=True)[0].half() for part in parts]
    return torch.cat(features)


@torch.no_grad()
def features_of_none(pipeline: StableDiffusionXLPipeline) -> Tensor:
    """What guidance reads instead of a reference."""
    anything = Image.new("RGB", (1, 1))
    return pipeline.encode_image([anything], "cpu", 1, output_hidden_states=True)[1][0].half()


def _captions(scene: dict, turn: bool) -> list[str]:
    """The captions of a scene in both forms."""
    name, settings = ("mirrored_caption", "mirrored_settings") if turn else ("caption", "settings")
    return [scene[name], *scene[settings]]


def _turned(field: np.ndarray, turn: bool) -> np.ndarray:
    return field[:, ::-1] if turn else field
