"""SDXL that sees references through an IP-Adapter: the velocity of a noisy image, as `mcpipe.flux.network` gives it.

Images are sequences of tokens, 2 x 2 patches of latents: 16 px with SDXL's VAE, the grid of its finest attention and of
FLUX's tokens. Every reference reaches its own region alone, by the masks of diffusers' attention processors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mcpipe.flux.added_lora import reference_policy
from mcpipe.flux.features import MatchScores
from mcpipe.flux.tokens import PATCH, Grid, pack, unpack
from mcpipe.objectives.focus import Norm
from mcpipe.sdxl.backbone import StableDiffusionXLPipeline, reads_hidden_states
from mcpipe.sdxl.features import recorded_matches
from mcpipe.sdxl.levels import NoiseLevels, as_diffusion, as_velocity


@dataclass(frozen=True)
class RegionConditions:
    """What images are to show, and where each reference is seen."""

    text: Float[Tensor, "batch text_tokens text_width"]
    """Both text encoders' tokens."""
    pooled: Float[Tensor, "batch pooled_width"]
    references: Float[Tensor, "batch slots image_tokens image_width"]
    """The image encoder's features; any where there is no reference."""
    regions: Bool[Tensor, "batch slots tokens"]
    """Tokens at which a reference is seen; none in slots without one."""

    def to(self, device: torch.device | str) -> "RegionConditions":
        """The same on a device."""
        return RegionConditions(*(each.to(device) for each in vars(self).values()))


def regions_of(
    prior: Bool[Tensor, "batch slots tokens"], present: Bool[Tensor, "batch slots"]
) -> Bool[Tensor, "batch slots tokens"]:
    """Where references are seen: each in its subject's mask; a single one everywhere, as an IP-Adapter is used."""
    alone = (present.sum(1) == 1)[:, None] & present
    return prior | alone[..., None]


class ReferenceUNet(nn.Module):
    """SDXL's UNet with an IP-Adapter behind the interface of `mcpipe.flux.network.ReferenceFlux`."""

    def __init__(self, pipeline: StableDiffusionXLPipeline, image_size: int) -> None:
        """A network for square images.

        Raises:
            ValueError: the size does not fit the UNet's grids.
        """
        super().__init__()
        self.unet = pipeline.unet
        self.grid: Grid = token_grid(pipeline, image_size)
        self.levels = NoiseLevels(pipeline.scheduler.alphas_cumprod)
        self._time_ids = torch.tensor([image_size, image_size, 0, 0, image_size, image_size], dtype=torch.float32)
        """Original size, crop and target size: an image that was neither scaled nor cut."""
        self._whole = reads_hidden_states(self.unet)

    def forward(
        self, noisy: Float[Tensor, "batch tokens packed"], t: Float[Tensor, " batch"], conditions: RegionConditions
    ) -> Float[Tensor, "batch tokens packed"]:
        """The velocity e - z_0 at noise levels ``t`` in [0, 1), in float32.

        Raises:
            ValueError: references and regions are not of one number.
        """
        num, num_regions = conditions.references.shape[1], conditions.regions.shape[1]
        if num == 0 or num != num_regions:
            raise ValueError(f"{num} references and {num_regions} regions; there should be one or more of each")
        dtype, batch = self.unet.dtype, len(noisy)
        state = unpack(noisy.float(), self.grid)
        features = conditions.references.to(dtype)
        noise = self.unet(
            as_diffusion(state, t).to(dtype),
            self.levels.steps(t),
            encoder_hidden_states=conditions.text.to(dtype),
            added_cond_kwargs={
                "text_embeds": conditions.pooled.to(dtype),
                "time_ids": self._time_ids.to(noisy.device, dtype).expand(batch, -1),
                "image_embeds": [features if self._whole else features.squeeze(2)],
            },
            cross_attention_kwargs={"ip_adapter_masks": [conditions.regions.unflatten(-1, self.grid).to(dtype)]},
        ).sample.float()
        return pack(as_velocity(noise, state, t))

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within this context the network computes without the added LoRA, and without a gradient."""
        with reference_policy(self.unet):
            yield

    @contextmanager
    def matches(self, norm: Norm, num_images: int) -> Iterator[MatchScores]:
        """Within this context every pass leaves the scores of its first images in the object."""
        with recorded_matches(self.unet, self.grid, norm, num_images) as scores:
            yield scores


def token_grid(pipeline: StableDiffusionXLPipeline, image_size: int) -> Grid:
    """Rows and columns of tokens of a square image of a size in pixels.

    Raises:
        ValueError: the size does not fit the UNet's grids.
    """
    levels = len(pipeline.unet.config.block_out_channels)
    pixels = pipeline.vae_scale_factor * max(PATCH, 2 ** (levels - 1))
    if image_size <= 0 or image_size % pixels:
        raise ValueError(f"image size {image_size} px is no multiple of {pixels} px, what this SDXL's grids need")
    side = image_size // pipeline.vae_scale_factor // PATCH
    return side, side
