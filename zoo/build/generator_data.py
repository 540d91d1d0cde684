"""Training data of the generator: latents of squares, of single faces and of references, with the ids of captions."""

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, FluxPipeline
from torch import Tensor
from transformers import CLIPTokenizer, T5TokenizerFast

from mcpipe.core.progress import track
from zoo.build.crops import cut_out
from zoo.build.face_reader import regions as face_regions
from zoo.build.generator_text import portrait_caption, token_ids
from zoo.build.pictures import Pictures
from zoo.build.regions import regions_of, traits_of
from zoo.build.sightings import UNSEEN
from zoo.build.training import batches, half_precision
from zoo.build.vae import SHRINKING, as_tensor

TOKEN_PX = 8
"""Pixels of an image per token and direction."""

NUM_SLOTS = 2
"""References of an image at most; images of more people are drawn from their captions alone."""

BACKGROUNDS = 2
"""Variants of a reference: with its own background, and on white."""

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
    traits: Tensor
    """(B, tokens, traits) lasting traits as numbers of whoever a token's head belongs to, NaN elsewhere."""
    faces: Tensor
    """(B, people, 4) regions of faces (`zoo.build.face_reader.regions`), NaN where nobody is."""
    references: Tensor | None = None
    """(B, slots, reference tokens, 64) packed latents of references in random order; ``None`` without references."""
    present: Tensor | None = None
    """(B, slots) which slots hold a reference."""


class Examples:
    """Everything encoded once: squares as they are and mirrored, references, and references as portraits."""

    def __init__(
        self,
        pictures: Pictures,
        vae: AutoencoderKL,
        tokenizers: tuple[CLIPTokenizer, T5TokenizerFast],
        size: int,
        reference_size: int,
    ) -> None:
        """Encode images at ``size`` and references at ``reference_size`` pixels, and captions as the pipeline will.

        Raises:
            ValueError: the image set has no captions in the form "scene".
        """
        self._vae, self._tokenizers, self._size = vae, tokenizers, size
        squares = pictures.small(size)
        mirrored = [scene["mirrored_caption"] for scene in pictures.scenes]
        regions, traits = _regions(pictures, size // TOKEN_PX)
        self._scenes = Batch(
            packed_latents(vae, np.concatenate([squares, squares[:, :, ::-1]])),
            *token_ids(tokenizers, [*pictures.captions(), *mirrored]),
            regions,
            traits,
            face_regions(pictures),
        )
        self._settings = _setting_ids(pictures, tokenizers)
        self._references = _references(pictures, vae, reference_size)
        self._counts = np.tile([len(scene["people"]) for scene in pictures.scenes], 2)
        self._firsts = np.tile([scene["first_reference"] for scene in pictures.scenes], 2)
        images, captions = _portraits(pictures, size)
        nothing = torch.full((len(images), *regions.shape[1:]), UNSEEN, dtype=torch.int8)
        nobody = torch.full((len(images), *traits.shape[1:]), torch.nan, dtype=torch.float16)
        no_faces = torch.full((len(images), *self._scenes.faces.shape[1:]), torch.nan)
        self._portraits = Batch(
            packed_latents(vae, images), *token_ids(tokenizers, captions), nothing, nobody, no_faces
        )
        self.empty = token_ids(tokenizers, [""])

    def of(self, pictures: Pictures) -> Batch:
        """All squares of another image set, encoded the same way."""
        latents = packed_latents(self._vae, pictures.small(self._size))
        regions, traits = (each[: len(latents)] for each in _regions(pictures, self._size // TOKEN_PX))
        faces = face_regions(pictures)[: len(latents)]
        return Batch(latents, *token_ids(self._tokenizers, pictures.captions()), regions, traits, faces)

    def faces(self) -> tuple[Tensor, Tensor]:
        """Unpacked latents (2 N, channels, rows, columns) of all squares, and the regions of their faces."""
        return unpacked(self._scenes.latents), self._scenes.faces

    def portraits(self, rng: np.random.Generator, count: int) -> Batch:
        """A batch of single faces."""
        return _rows(self._portraits, rng.integers(0, len(self._portraits.latents), count))

    def scenes(self, rng: np.random.Generator, count: int, scene_share: float) -> Batch:
        """A batch of scenes without references, a share of the captions in the form "scene"."""
        rows = rng.integers(0, len(self._scenes.latents), count)
        return self._described(_rows(self._scenes, rows), rows, rng, scene_share)

    def referenced(self, rng: np.random.Generator, count: int, scene_share: float) -> Batch:
        """A batch of scenes of one or two people, with a reference of everybody."""
        few = np.flatnonzero(self._counts <= NUM_SLOTS)
        rows = few[rng.integers(0, len(few), count)]
        batch = self._described(_rows(self._scenes, rows), rows, rng, scene_share)
        counts = self._counts[rows]
        order = np.stack([rng.permutation(NUM_SLOTS) for _ in rows])
        order[counts == 1] = 0
        chosen = self._references[
            torch.from_numpy((rows >= len(self._counts) // 2).astype(int))[:, None],
            torch.from_numpy(rng.integers(0, BACKGROUNDS, (count, 1))),
            torch.from_numpy(self._firsts[rows][:, None] + order),
        ]
        present = torch.from_numpy(np.arange(NUM_SLOTS) < counts[:, None])
        return dataclasses.replace(batch, references=chosen.float(), present=present)

    def _described(self, batch: Batch, rows: np.ndarray, rng: np.random.Generator, scene_share: float) -> Batch:
        """The batch with a share of its captions in the form "scene"."""
        count = len(rows)
        replaced = torch.from_numpy(rng.random(count) < scene_share)[:, None]
        variants = torch.from_numpy(rng.integers(0, self._settings[0].shape[1], count))
        clip_ids, t5_ids = (ids[torch.from_numpy(rows), variants] for ids in self._settings)
        return dataclasses.replace(
            batch,
            clip_ids=torch.where(replaced, clip_ids, batch.clip_ids),
            t5_ids=torch.where(replaced, t5_ids, batch.t5_ids),
        )

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


def _rows(source: Batch, rows: np.ndarray) -> Batch:
    """Some rows of encoded images."""
    places = torch.from_numpy(rows)
    latents, traits = source.latents[places].float(), source.traits[places].float()
    words = source.clip_ids[places], source.t5_ids[places]
    return Batch(latents, *words, source.regions[places].long(), traits, source.faces[places])


def unpacked(latents: Tensor) -> Tensor:
    """Latents (B, channels, rows, columns) of packed ones (B, tokens, 4 channels) of a square."""
    side = TOKEN_PX * round(latents.shape[1] ** 0.5)
    return FluxPipeline._unpack_latents(latents, side, side, SHRINKING)


def _regions(pictures: Pictures, side: int) -> tuple[Tensor, Tensor]:
    """Classes and traits of every token of every square, then of the mirrored ones, each (2 N, side * side, ...)."""
    total = range(len(pictures.scenes))
    classes = np.stack([regions_of(pictures, index, cropped=True, side=(side, side)) for index in total])
    traits = np.stack([traits_of(pictures, index, side=(side, side)) for index in total])
    both = (np.concatenate([each, each[:, :, ::-1]]) for each in (classes.astype(np.int8), traits.astype(np.float16)))
    first, second = (torch.from_numpy(each).flatten(1, 2) for each in both)
    return first, second


def _references(pictures: Pictures, vae: AutoencoderKL, size: int) -> Tensor:
    """Latents of all references, (as they are or mirrored, backgrounds, M, tokens, 64)."""
    four = np.asarray(pictures.references)
    crops = np.stack([np.stack([cv2.resize(variant, (size, size), interpolation=cv2.INTER_AREA) for variant in group])
                      for group in (four[..., :3], map(cut_out, four))])  # fmt: skip
    both = np.stack([crops, crops[:, :, :, ::-1]])
    return packed_latents(vae, both.reshape(-1, size, size, 3)).unflatten(0, both.shape[:3])


def _setting_ids(pictures: Pictures, tokenizers: tuple[CLIPTokenizer, T5TokenizerFast]) -> tuple[Tensor, Tensor]:
    """Ids of all captions in the form "scene", of squares as they are and mirrored, each (2 N, variants, length)."""
    if "settings" not in pictures.scenes[0]:
        raise ValueError('the images have no captions in the form "scene"; set pictures.scene_captions to 1 or more')
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
