"""Training data of the generator beside people: scenes of things (`zoo.build.things`) with references of each."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer, T5TokenizerFast

from zoo.build.crops import cut_out
from zoo.build.generator_data import BACKGROUNDS, NUM_SLOTS, Batch, packed_latents
from zoo.build.generator_text import token_ids
from zoo.build.sightings import UNSEEN
from zoo.build.things import read_things


class ThingExamples:
    """Scenes of things and their references, encoded once, as they are and mirrored."""

    def __init__(
        self,
        folder: Path,
        vae: AutoencoderKL,
        tokenizers: tuple[CLIPTokenizer, T5TokenizerFast],
        size: int,
        reference_size: int,
    ) -> None:
        """Encode an image set at ``size`` and its references at ``reference_size`` pixels.

        Raises:
            FileNotFoundError: the folder holds no image set.
        """
        things = read_things(folder)
        squares = things.small(size)
        self._latents = packed_latents(vae, np.concatenate([squares, squares[:, :, ::-1]]))
        self._described = token_ids(
            tokenizers, [scene[name] for name in ("caption", "mirrored_caption") for scene in things.scenes]
        )
        named = [scene[name] for name in ("settings", "mirrored_settings") for scene in things.scenes]
        ids = token_ids(tokenizers, [text for texts in named for text in texts])
        self._named = ids[0].unflatten(0, (len(named), -1)), ids[1].unflatten(0, (len(named), -1))
        four = np.asarray(things.references)
        crops = np.stack([np.stack([cv2.resize(variant, (reference_size,) * 2, interpolation=cv2.INTER_AREA)
                                    for variant in group])
                          for group in (four[..., :3], map(cut_out, four))])  # fmt: skip
        both = np.stack([crops, crops[:, :, :, ::-1]])
        self._references = packed_latents(vae, both.reshape(-1, *both.shape[3:])).unflatten(0, both.shape[:3])
        self._counts = np.tile([len(scene["names"]) for scene in things.scenes], 2)
        self._firsts = np.tile([scene["first_reference"] for scene in things.scenes], 2)

    def batch(self, rng: np.random.Generator, like: Batch, shares: tuple[float, float], *, referenced: bool) -> Batch:
        """A batch of scenes, as large as ``like``, with a reference of every thing if ``referenced``.

        ``shares`` are those of captions that only name the things, in [0, 1], with references and without. Things
        have no regions, traits or faces.
        """
        count = len(like.latents)
        rows = rng.integers(0, len(self._counts), count)
        if referenced:
            few = np.flatnonzero(self._counts <= NUM_SLOTS)
            rows = few[rng.integers(0, len(few), count)]
        batch = dataclasses.replace(
            like,
            latents=self._latents[torch.from_numpy(rows)].float(),
            regions=torch.full_like(like.regions, UNSEEN),
            traits=torch.full_like(like.traits, torch.nan),
            faces=torch.full_like(like.faces, torch.nan),
            references=None,
            present=None,
        )
        clip_ids, t5_ids = self._captions(rows, rng, shares[0] if referenced else shares[1])
        batch = dataclasses.replace(batch, clip_ids=clip_ids, t5_ids=t5_ids)
        return dataclasses.replace(batch, **self._referenced(rows, rng)) if referenced else batch

    def _captions(self, rows: np.ndarray, rng: np.random.Generator, share: float) -> tuple[Tensor, Tensor]:
        """Ids of captions, a share of them in the form that only names the things."""
        named = torch.from_numpy(rng.random(len(rows)) < share)[:, None]
        places = torch.from_numpy(rows)
        variants = torch.from_numpy(rng.integers(0, self._named[0].shape[1], len(rows)))
        clip_ids, t5_ids = (
            torch.where(named, short[places, variants], full[places])
            for short, full in zip(self._named, self._described, strict=True)
        )
        return clip_ids, t5_ids

    def _referenced(self, rows: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """References in random order, and which of them are present, as in `Batch`."""
        counts = self._counts[rows]
        order = np.stack([rng.permutation(NUM_SLOTS) for _ in rows])
        order[counts == 1] = 0
        chosen = self._references[
            torch.from_numpy((rows >= len(self._counts) // 2).astype(int))[:, None],
            torch.from_numpy(rng.integers(0, BACKGROUNDS, (len(rows), 1))),
            torch.from_numpy(self._firsts[rows][:, None] + order),
        ]
        return {"references": chosen.float(), "present": torch.from_numpy(np.arange(NUM_SLOTS) < counts[:, None])}
