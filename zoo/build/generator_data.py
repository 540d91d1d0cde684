"""Training data of the generator: latents of squares and of single faces with the ids of their captions."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, FluxPipeline
from torch import Tensor
from transformers import CLIPTokenizer, T5TokenizerFast

from mcpipe.core.progress import track
from zoo.build.generator_text import portrait_caption, token_ids
from zoo.build.pictures import Pictures
from zoo.build.regions import regions_of
from zoo.build.sightings import UNSEEN
from zoo.build.training import batches, half_precision
from zoo.build.vae import as_tensor

TOKEN_PX = 8
"""Pixels of an image per token and direction."""

NUM_PORTRAITS = 3000
ENCODED_TOGETHER = 32


@dataclass(frozen=True)
class Batch:
    """Packed, normalised latents (B, tokens, 64) and the ids of their captions (B, length)."""

    latents: Tensor
    clip_ids: Tensor
    t5_ids: Tensor
    regions: Tensor
    """(B, tokens, attributes) what each token shows (`zoo.build.regions`)."""


class Examples:
    """Everything encoded once: squares as they are and mirrored, and references as portraits."""

    def __init__(
        self,
        pictures: Pictures,
        vae: AutoencoderKL,
        tokenizers: tuple[CLIPTokenizer, T5TokenizerFast],
        size: int,
        scene_share: float = 0.0,
    ) -> None:
        """Encode images at ``size`` pixels and captions as the pipeline will.

        A share ``scene_share`` of the scenes in a batch has captions in the form "scene".

        Raises:
            ValueError: the image set has no such captions.
        """
        self._scene_share = scene_share
        self._vae, self._tokenizers, self._size = vae, tokenizers, size
        squares = pictures.small(size)
        mirrored = [scene["mirrored_caption"] for scene in pictures.scenes]
        self._scenes = Batch(
            packed_latents(vae, np.concatenate([squares, squares[:, :, ::-1]])),
            *token_ids(tokenizers, [*pictures.captions(), *mirrored]),
            _regions(pictures, size // TOKEN_PX),
        )
        self._settings = _setting_ids(pictures, tokenizers) if scene_share else None
        images, captions = _portraits(pictures, size)
        nothing = torch.full((len(images), *self._scenes.regions.shape[1:]), UNSEEN, dtype=torch.int8)
        self._portraits = Batch(packed_latents(vae, images), *token_ids(tokenizers, captions), nothing)
        self.empty = token_ids(tokenizers, [""])

    def of(self, pictures: Pictures) -> Batch:
        """All squares of another image set, encoded the same way."""
        latents = packed_latents(self._vae, pictures.small(self._size))
        regions = _regions(pictures, self._size // TOKEN_PX)[: len(latents)]
        return Batch(latents, *token_ids(self._tokenizers, pictures.captions()), regions)

    def draw(self, rng: np.random.Generator, count: int, *, portraits: bool) -> Batch:
        """A batch of scenes or of portraits."""
        source = self._portraits if portraits else self._scenes
        rows = torch.from_numpy(rng.integers(0, len(source.latents), count))
        clip_ids, t5_ids = source.clip_ids[rows], source.t5_ids[rows]
        if self._settings is not None and not portraits:
            replaced = torch.from_numpy(rng.random(count) < self._scene_share)[:, None]
            variant = torch.from_numpy(rng.integers(0, self._settings[0].shape[1], count))
            of_scene = [ids[rows, variant] for ids in self._settings]
            clip_ids, t5_ids = torch.where(replaced, of_scene[0], clip_ids), torch.where(replaced, of_scene[1], t5_ids)
        return Batch(source.latents[rows].float(), clip_ids, t5_ids, source.regions[rows].long())

    def without_some(self, batch: Batch, share: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The ids of a batch, some captions replaced by the empty one."""
        dropped = torch.from_numpy(rng.random(len(batch.clip_ids)) < share)[:, None]
        no_clip, no_t5 = self.empty
        return torch.where(dropped, no_clip, batch.clip_ids), torch.where(dropped, no_t5, batch.t5_ids)


@torch.no_grad()
def packed_latents(vae: AutoencoderKL, pictures: np.ndarray) -> Tensor:
    """Normalised latents of images as FLUX packs them, (N, tokens, 64) in float16."""
    shift, scale = vae.config.shift_factor, vae.config.scaling_factor
    parts = list(batches(len(pictures), ENCODED_TOGETHER))
    packed = []
    for part in track(parts, len(parts), "encoding"):
        with half_precision():
            latents = vae.encode(as_tensor(pictures[part])).latent_dist.mode()
        latents = (latents.float() - shift) * scale
        packed.append(FluxPipeline._pack_latents(latents, *latents.shape).half())
    return torch.cat(packed)


def _regions(pictures: Pictures, side: int) -> Tensor:
    """Classes of every token of every square, then of the mirrored squares, (2 N, side * side, attributes)."""
    maps = [regions_of(pictures, index, cropped=True, side=(side, side)) for index in range(len(pictures.scenes))]
    both = np.stack(maps).astype(np.int8)
    return torch.from_numpy(np.concatenate([both, both[:, :, ::-1]])).flatten(1, 2)


def _setting_ids(pictures: Pictures, tokenizers: tuple[CLIPTokenizer, T5TokenizerFast]) -> tuple[Tensor, Tensor]:
    """Ids of all captions in the form "scene", of squares as they are and mirrored, each (2 N, variants, length)."""
    if "settings" not in pictures.scenes[0]:
        raise ValueError("the pictures have no captions of the scene; set pictures.scene_captions to 1 or more")
    captions = [scene[name] for name in ("settings", "mirrored_settings") for scene in pictures.scenes]
    clip_ids, t5_ids = token_ids(tokenizers, [text for texts in captions for text in texts])
    return clip_ids.unflatten(0, (len(captions), -1)), t5_ids.unflatten(0, (len(captions), -1))


def _portraits(pictures: Pictures, size: int) -> tuple[np.ndarray, list[str]]:
    """References at the generator's size, and their captions."""
    images, captions = [], []
    for scene in pictures.scenes:
        for seat, traits in enumerate(scene["traits"]):
            crop = pictures.references[scene["first_reference"] + seat][..., :3]
            images.append(cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC))
            captions.append(portrait_caption(traits))
        if len(images) >= NUM_PORTRAITS:
            break
    return np.stack(images), captions
