"""The autoencoder of the tiny generator: `AutoencoderKL` with 6 channels at a quarter of the size.

Its latents are made for a small transformer that has to model them: eight numbers of an image become one, as in FLUX
twelve (with 16 channels at this size they would be three, and thirteen of the channels little but noise to a small
network), a strong KL term keeps out invisible detail, and the first three channels are held to be the image
itself, shrunk. Being the largest, they come out of the noise first, so that a generator settles layout and colours
before details. The scale and shift that give latents zero mean and unit deviation are measured and stored in the
configuration, where every user of a FLUX autoencoder looks.
"""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder
from zoo.build.cards import Measured, write_measured
from zoo.build.crops import SQUARE, on_white
from zoo.build.pictures import Pictures, read_pictures
from zoo.build.things import SIDE, ThingPictures, read_things
from zoo.build.training import FitParams, Loss, batches, fit, half_precision, settle

CHANNELS = (16, 32, 64)
"""Width at full, half and quarter size."""

LATENT_CHANNELS = 6
SHRINKING = 4
COLOUR_GAIN = 2.5
"""The first three latent channels are the shrunk image in [-1, 1] times this, about twice as large as the others."""

CROP = 64
"""Side of training crops; convolutions do not mind the size."""

FACE_SHARE = 0.5
"""Crops centred on a face or a thing; small errors matter there most."""

REFERENCE_SHARE = 0.2
THING_REFERENCES = 0.3
REFERENCE_SIZES = (40, 64)
"""Crops that are reference images, the share of things among them, and the sizes they are shrunk to."""


class VaeParams(Params):
    """How to train the autoencoder."""

    fit: FitParams
    size: int
    """Pixels of a training square's side."""
    kl_weight: float
    """Weight of the KL term against the reconstruction."""
    start: str | None = Field(default=None, min_length=1)
    """Folder of an autoencoder whose decoder goes on training; its encoder, hence every latent, stays as it is."""
    cycle_weight: float = Field(ge=0)
    """Weight of the squared distance between the latents of a decoded image and those of the original, in training of a
    decoder alone."""


def build(pictures: Path, things: Path, out: Path, params: VaeParams) -> None:
    """Train on the squares of ``pictures`` and of ``things`` and write the autoencoder's folder."""
    settle(params.fit.seed)
    train, test = read_pictures(pictures / "train"), read_pictures(pictures / "test")
    vae = autoencoder(params.size)
    crops = Crops(train, read_things(things / "train"), params.size)
    if params.start is not None:
        vae = AutoencoderKL.from_pretrained(params.start).float()
        vae.encoder.requires_grad_(False)

    def loss_of(_: int, rng: np.random.Generator) -> Loss:
        drawn = crops.draw(rng, params.fit.batch)
        if params.start is not None:
            return decoder_loss(vae, drawn, params.cycle_weight, rng)
        return reconstruction_loss(vae, drawn, params.kl_weight)

    curves = fit([vae], loss_of, params.fit, out.with_suffix(".progress"))
    squares = test.small(params.size)
    if params.start is None:
        scale, shift = latent_statistics(vae, squares)
        vae.register_to_config(scaling_factor=scale, shift_factor=shift)
    metrics = {"psnr_db": psnr(vae, squares), "face_psnr_db": psnr(vae, reference_pictures(test, 48))}
    metrics |= {name: float(vae.config[name]) for name in ("scaling_factor", "shift_factor")}
    with whole_folder(out) as folder:
        vae.half().save_pretrained(folder)
        write_measured(folder, Measured("vae", metrics, curves, params))


def autoencoder(size: int) -> AutoencoderKL:
    """An untrained autoencoder whose residual blocks begin as identities."""
    levels = len(CHANNELS)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=size,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        force_upcast=False,
    )
    for name, weight in vae.named_parameters():
        if name.endswith(("conv2.weight", "conv2.bias")):
            nn.init.zeros_(weight)
    return vae


class Crops:
    """Crops of squares, of faces and things in them, and reference images, all of one size per batch."""

    def __init__(self, people: Pictures, things: ThingPictures, size: int) -> None:
        """Shrink all squares to ``size``."""
        self._squares = np.concatenate([people.small(size), things.small(size)])
        self._references = people.references, things.references
        of_people = [_centres(scene["faces"], size / SQUARE) for scene in people.scenes]
        of_things = [_centres(filter(None, scene["boxes"]), size / SIDE) for scene in things.scenes]
        self._centres = of_people + of_things

    def draw(self, rng: np.random.Generator, count: int) -> Tensor:
        """A batch in [-1, 1]; each image mirrored or not."""
        if rng.random() < REFERENCE_SHARE:
            references = self._references[int(rng.random() < THING_REFERENCES)]
            chosen = references[np.sort(rng.integers(0, len(references), count))]
            side = int(rng.integers(REFERENCE_SIZES[0] // 4, REFERENCE_SIZES[1] // 4 + 1)) * 4
            drawn = [cv2.resize(on_white(four, rng), (side, side), interpolation=cv2.INTER_AREA) for four in chosen]
        else:
            drawn = [self._crop(int(index), rng) for index in rng.integers(0, len(self._squares), count)]
        return as_tensor(np.stack([picture[:, ::-1] if rng.random() < 0.5 else picture for picture in drawn]))

    def _crop(self, index: int, rng: np.random.Generator) -> np.ndarray:
        square, centres = self._squares[index], self._centres[index]
        furthest = len(square) - CROP
        left, top = rng.integers(0, furthest + 1, 2)
        if centres and rng.random() < FACE_SHARE:
            centre = centres[int(rng.integers(len(centres)))] + rng.normal(0, 4, 2)
            left, top = np.clip(np.round(centre - CROP / 2), 0, furthest).astype(int)
        return square[top : top + CROP, left : left + CROP]


def _centres(boxes: Iterable[list[float]], scale: float) -> list[np.ndarray]:
    return [scale * np.reshape(box, (2, 2)).mean(axis=0) for box in boxes]


def reference_pictures(pictures: Pictures, size: int) -> np.ndarray:
    """The references at another size, half of them cut out on white."""
    rng = np.random.default_rng(0)
    whole = [on_white(four, rng) for four in pictures.references]
    return np.stack([cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA) for picture in whole])


def as_tensor(pictures: np.ndarray) -> Tensor:
    """Images (N, H, W, 3) uint8 as (N, 3, H, W) in [-1, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    return tensor.float().div(127.5).sub(1)


def reconstruction_loss(vae: AutoencoderKL, pictures: Tensor, kl_weight: float) -> Loss:
    """Squared error of pixels and of colour differences, absolute error of pixels and of edges, and the KL term."""
    with half_precision():
        moments = vae.encode(pictures).latent_dist
        rebuilt = vae.decode(moments.sample()).sample
    mean, log_variance = moments.mean.float(), moments.logvar.float()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    shrunk = COLOUR_GAIN * functional.avg_pool2d(pictures, SHRINKING)
    colours = (mean[:, :3] - shrunk).square().mean()
    return Loss(**image_errors(rebuilt.float() - pictures), kl=kl_weight * divergence, colours=colours)


def decoder_loss(vae: AutoencoderKL, pictures: Tensor, cycle_weight: float, rng: np.random.Generator) -> Loss:
    """The errors of decoded images, and of the latents to which the frozen encoder takes them back.

    The latents carry between none and all of the encoder's noise, as those that a generator draws are not quite right.
    """
    with half_precision():
        with torch.no_grad():
            moments = vae.encode(pictures).latent_dist
        noise = float(rng.random()) * moments.std * torch.randn_like(moments.mean)
        rebuilt = vae.decode(moments.mean + noise).sample
        again = vae.encode(rebuilt).latent_dist.mean
    cycle = (again.float() - moments.mean.float()).square().mean()
    return Loss(**image_errors(rebuilt.float() - pictures), cycle=cycle_weight * cycle)


def image_errors(error: Tensor) -> dict[str, Tensor]:
    """Squared error of pixels and of colour differences, absolute error of pixels and of edges."""
    chroma = torch.stack([error[:, 0] - error[:, 1], error[:, 2] - error[:, 1]])
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    squared = error.square().mean()
    pixels = 4 * squared + 4 * chroma.square().mean() + 0.5 * error.abs().mean()
    return {"pixels": pixels, "edges": 0.5 * edges, "_squared_error": squared}


@torch.no_grad()
def encoded(vae: AutoencoderKL, pictures: np.ndarray) -> Tensor:
    """The most likely latents of images, neither scaled nor shifted."""
    parts = [vae.encode(as_tensor(pictures[part])).latent_dist.mode() for part in batches(len(pictures), 16)]
    return torch.cat(parts)


def latent_statistics(vae: AutoencoderKL, pictures: np.ndarray) -> tuple[float, float]:
    """The scaling and shift factor that normalise the latents of images."""
    latents = encoded(vae, pictures)
    return float(1 / latents.std()), float(latents.mean())


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: np.ndarray) -> float:
    """Peak signal-to-noise ratio of reconstructions, in dB, averaged over squared errors."""
    total = 0.0
    for part in batches(len(pictures), 16):
        originals = as_tensor(pictures[part])
        rebuilt = vae.decode(vae.encode(originals).latent_dist.mode()).sample.clamp(-1, 1)
        total += float((rebuilt - originals).square().mean(dim=(1, 2, 3)).sum())
    return float(10 * np.log10(4 / (total / len(pictures))))
