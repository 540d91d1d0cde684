"""The tiny SDXL with an IP-Adapter Plus: a UNet that predicts noise, after text and after references of single faces.

UNet and adapter learn together, as a network of this size has nothing to say before it has seen a face. References are
seen in regions: one everywhere, two each in its half of the image or in its face, which the adapter's attention knows
as ``ip_adapter_masks``. Texts and references are dropped now and then, for guidance. Two heads that are thrown away
read lasting traits, one off the tokens that the adapter makes of a reference, one off the UNet's tokens of heads: which
reference belongs to which place is learned from that sooner than from colours (as in `zoo.build.generator`).

VAE, text encoders and image encoder are other parts of the zoo and stay as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, StableDiffusionXLPipeline
from pydantic import Field
from torch import Tensor, nn

from mcpipe.core.params import Params
from mcpipe.core.shards import whole_folder
from mcpipe.models.faces import InsightFaces
from zoo.build.cards import Card, Measured, write_card
from zoo.build.pictures import read_pictures
from zoo.build.regions import TraitHead
from zoo.build.sdxl_data import SIDE, Batch, Examples
from zoo.build.sdxl_files import random_adapter, read_own_parts, untrained, write_own_parts
from zoo.build.sdxl_scores import DrawParams, measured
from zoo.build.training import FitParams, Loss, fit, settle

PACK = "models/puppet"
"""The recogniser in the folder of `faces`."""
LARGEST_WEIGHT = 50.0
"""Largest weight of a noise level."""


class SdxlParams(Params):
    """Size and training."""

    fit: FitParams
    start: str | None = Field(default=None, min_length=1)
    """Folder of a UNet and an IP-Adapter to go on from; ``None`` begins with random weights."""
    size: int = Field(gt=0)
    """Pixels of an image's side."""
    reference_size: int = Field(gt=0)
    """Pixels of a reference's side."""
    num_scenes: int = Field(ge=1)
    """Scenes that are encoded once, with one portrait each."""
    widths: list[int] = Field(min_length=2, max_length=2)
    """Channels of the UNet's two levels."""
    num_tokens: int = Field(ge=1)
    """Tokens that the adapter makes of a reference."""
    adapter_width: int = Field(ge=64, multiple_of=64)
    """Width of the adapter's resampler."""
    portrait_share: float = Field(ge=0, le=1)
    """Share of batches that show one face close by instead of a scene."""
    dropout: float = Field(ge=0, le=1)
    """Share of texts, and of references, that are left out."""
    head_weight: float = Field(ge=1)
    """Weight of a token that shows a head in the squared error of noise; that of any other is 1."""
    trait_weight: float = Field(ge=0)
    """Weight of the squared errors of lasting traits, against the squared error of noise."""
    draw: DrawParams
    """How held-out images are drawn for the figures."""


def build(  # noqa: PLR0913  one argument per path
    pictures: Path, generator: Path, faces: Path, clip: Path, out: Path, params: SdxlParams
) -> None:
    """Train on ``pictures`` with the parts of ``generator`` and ``clip``; write UNet, scheduler and IP-Adapter."""
    settle(params.fit.seed)
    train = read_pictures(pictures / "train")
    pipeline = untrained(generator, clip, params.widths)
    examples = Examples(train, pipeline, params.num_scenes, params.size, params.reference_size)
    image_width = pipeline.image_encoder.config.hidden_size
    unet = pipeline.unet
    if params.start is None:
        adapter = random_adapter(unet, image_width, params.num_tokens, params.adapter_width)
    else:
        adapter = read_own_parts(unet, Path(params.start))
    unet._load_ip_adapter_weights([adapter], low_cpu_mem_usage=False)
    unet.requires_grad_(True)
    num_traits = len(train.scenes[0]["traits_vectors"][0])
    widths = unet.config.block_out_channels[-1], unet.config.cross_attention_dim
    heads = nn.ModuleList([TraitHead(width, num_traits) for width in widths])
    levels = DDPMScheduler.from_config(pipeline.scheduler.config).alphas_cumprod

    def loss_of(_: int, rng: np.random.Generator) -> Loss:
        draw = examples.portraits if rng.random() < params.portrait_share else examples.scenes
        batch = draw(rng, params.fit.batch)
        return noise_loss(pipeline, heads, examples.without_some(batch, params.dropout, rng), levels, params)

    curves = fit([unet, heads], loss_of, params.fit, out.with_suffix(".progress"))
    with whole_folder(out) as folder:
        write_own_parts(pipeline, folder)
        recogniser = InsightFaces(faces / PACK, params.draw.min_face_score, params.draw.detection_size)
        metrics = measured(pipeline, read_pictures(pictures / "test"), recogniser, params.draw, params.size)
        write_card(folder, CARD, Measured("sdxl", metrics, curves, params))


def noise_loss(
    pipeline: StableDiffusionXLPipeline, heads: nn.ModuleList, batch: Batch, levels: Tensor, params: SdxlParams
) -> Loss:
    """Squared error of the predicted noise, weighed by noise level and place, and the errors of both readers.

    Weighed by (1 - t)^-2 it is that of a flow's velocity (`mcpipe.sdxl.levels`): near pure noise, where an image's
    layout is settled, errors of the noise itself are small whatever is predicted.
    """
    count = len(batch.latents)
    steps = torch.randint(len(levels), (count,))
    noise, signal = torch.randn_like(batch.latents), levels[steps]
    noisy = signal.sqrt()[:, None, None, None] * batch.latents + (1 - signal).sqrt()[:, None, None, None] * noise
    with watched(pipeline) as seen:
        predicted = predicted_noise(pipeline, noisy, steps, batch, params.size)
    levels_of_flow = (1 - signal).sqrt() / (signal.sqrt() + (1 - signal).sqrt())
    on_head = batch.traits[..., 0].isfinite().float()
    weights = (1 + (params.head_weight - 1) * on_head).unflatten(1, (SIDE, SIDE))
    errors = (predicted.float() - noise).square().mean(1)
    errors = nn.functional.avg_pool2d(errors, errors.shape[-1] // SIDE)
    by_image = (errors * weights).sum((1, 2)) / weights.sum((1, 2))
    in_image, in_reference = heads
    tokens, references = (each.float() for each in seen)
    traits = in_image(tokens, batch.traits) + in_reference(references, batch.owners.flatten(0, 1))
    return Loss(
        velocity=(by_image * (1 - levels_of_flow).pow(-2).clamp(max=LARGEST_WEIGHT)).mean(),
        traits=params.trait_weight * traits,
        _noise=errors.mean(),
    )


def predicted_noise(
    pipeline: StableDiffusionXLPipeline, noisy: Tensor, steps: Tensor, batch: Batch, size: int
) -> Tensor:
    """The UNet's prediction, called as the pipeline calls it."""
    ids = torch.tensor([size, size, 0, 0, size, size], dtype=noisy.dtype).expand(len(noisy), -1)
    return pipeline.unet(
        noisy,
        steps,
        encoder_hidden_states=batch.text,
        added_cond_kwargs={"text_embeds": batch.pooled, "time_ids": ids, "image_embeds": [batch.features]},
        cross_attention_kwargs={"ip_adapter_masks": [batch.regions]},
    ).sample


@contextmanager
def watched(pipeline: StableDiffusionXLPipeline) -> Iterator[list[Tensor]]:
    """What the two readers read: the UNet's tokens (B, tokens, width), and the mean token of every reference."""
    seen: dict[str, Tensor] = {}
    unet, tokens = pipeline.unet, []

    def keep_image(_layer: nn.Module, _args: tuple, output: Tensor) -> None:
        seen["image"] = output.flatten(2).transpose(1, 2)

    def keep_references(_layer: nn.Module, _args: tuple, output: Tensor) -> None:
        seen["references"] = output.mean(1)

    handles = [
        unet.up_blocks[0].resnets[-1].register_forward_hook(keep_image),
        unet.encoder_hid_proj.image_projection_layers[0].register_forward_hook(keep_references),
    ]
    try:
        yield tokens
        tokens += [seen["image"], seen["references"]]
    finally:
        for handle in handles:
            handle.remove()


CARD = Card(
    title="SDXL with an IP-Adapter of the tiny zoo",
    what=(
        "A `StableDiffusionXLPipeline` directory and an IP-Adapter Plus in the published format, float16. Its own are "
        "the `unet` (two levels, epsilon prediction), the scheduler and `ip-adapter-plus.safetensors`; VAE and first "
        "text encoder are links to the generator's, the second text encoder and the image encoder are links to "
        "`clip_reward`. FocusDPO's second backbone."
    ),
    data=(
        "Squares of 96 x 96 pixels of the puppet world with one or two people and close-ups of single faces, with "
        "references of 48 x 48 pixels: crops of another moment, on white or as they were taken."
    ),
    limits=(
        "Trained for minutes: people and places are blotches, without a reference hardly anybody is to be made out, "
        "and of a reference it takes hair and skin, not the shape of a face. Knows pictures of 96 x 96 pixels."
    ),
    bars={
        "face_sim_right": "Face-Sim of drawn images of one person with their own reference, 0 where no face is found",
        "face_sim_others": "the same with somebody else's reference",
        "face_sim_none": "the same without the adapter; the floor",
        "located_right": "share of images in which the detector finds a face",
        "portrait_face_sim_right": "the same for close-ups of one face, own reference",
        "portrait_face_sim_others": "somebody else's reference",
        "portrait_face_sim_none": "without the adapter",
        "portrait_located_right": "share of close-ups in which the detector finds a face",
    },
)
