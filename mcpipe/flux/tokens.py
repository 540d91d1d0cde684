"""Latents as tokens, their positions, and how reference tokens enter FLUX.

The image stream becomes [noisy image | reference 1 | reference 2 ...]; the prediction is cut back to the image.
An image token stands at (0, y, x). Positions distinguish references:

    unope  UNO's diagonal: (0, y + H_i, x + W_i), where (H_1, W_1) is the image's grid and each further reference
           starts where the previous one ends
    frame  PSR's frames: (i, y, x)

Ids are float32, because bfloat16 merges integers above 256.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mcpipe.core.sizes import Size
from mcpipe.flux.backbone import FluxPipeline

PATCH = 2
"""Side of a token's square in latent pixels."""

Grid = tuple[int, int]
"""Rows and columns of tokens."""
SIDES = ("image width", "image height")
Positions = Literal["unope", "frame"]
"""Positions that distinguish references."""


def pack(latents: Float[Tensor, "*batch channels h w"]) -> Float[Tensor, "*batch tokens packed"]:
    """Latents cut into 2x2 patches, row by row; channels are the slowest part of a token."""
    *batch, channels, h, w = latents.shape
    patches = latents.reshape(-1, channels, h // PATCH, PATCH, w // PATCH, PATCH).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(*batch, (h // PATCH) * (w // PATCH), channels * PATCH**2)


def unpack(tokens: Float[Tensor, "batch tokens packed"], grid: Grid) -> Float[Tensor, "batch channels h w"]:
    """Latents put together again from their patches."""
    rows, columns = grid
    batch, _, packed = tokens.shape
    patches = tokens.reshape(batch, rows, columns, packed // PATCH**2, PATCH, PATCH)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, packed // PATCH**2, rows * PATCH, columns * PATCH)


def position_ids(grid: Grid, start: Grid = (0, 0), frame: int = 0) -> Float[Tensor, "tokens 3"]:
    """Ids (frame, y, x) of a grid whose first token stands at ``start``."""
    rows = torch.arange(grid[0], dtype=torch.float32) + start[0]
    columns = torch.arange(grid[1], dtype=torch.float32) + start[1]
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([torch.full_like(y, frame), y, x], -1).reshape(-1, 3)


@dataclass(frozen=True)
class Layout:
    """Token grids of the image and of every reference (all references have one size)."""

    image: Grid
    reference: Grid
    positions: Positions = "unope"

    @property
    def num_image_tokens(self) -> int:
        """Tokens of the image."""
        return self.image[0] * self.image[1]

    @property
    def num_reference_tokens(self) -> int:
        """Tokens of one reference."""
        return self.reference[0] * self.reference[1]

    def reference_ids(self, num_references: int) -> Float[Tensor, "tokens 3"]:
        """Positions of the references, one after the other."""
        if self.positions == "frame":
            return torch.cat([position_ids(self.reference, frame=i + 1) for i in range(num_references)])
        (rows, columns), (reference_rows, reference_columns) = self.image, self.reference
        starts = [(rows + i * reference_rows, columns + i * reference_columns) for i in range(num_references)]
        return torch.cat([position_ids(self.reference, start) for start in starts])


def layout(pipeline: FluxPipeline, image_size: int | Size, reference_size: int) -> Layout:
    """Grids of images and square references of given sizes in pixels, at the adapter's positions.

    ``image_size`` is the side of a square, or width and height.

    Raises:
        ValueError: a size is no multiple of the pixels that a token covers.
    """
    pixels = pipeline.vae_scale_factor * PATCH
    width, height = (image_size, image_size) if isinstance(image_size, int) else image_size
    images = ("image size", "image size") if isinstance(image_size, int) else SIDES
    for name, size in zip((*images, "reference size"), (width, height, reference_size), strict=True):
        if size <= 0 or size % pixels:
            raise ValueError(f"{name} {size} px is no multiple of {pixels} px, the side of this generator's tokens")
    grids = (height // pixels, width // pixels), (reference_size // pixels,) * 2
    return Layout(*grids, trained_positions(pipeline.transformer))


def trained_positions(transformer: nn.Module) -> Positions:
    """Positions of references of a transformer's adapter; ``unope`` without an adapter or for other adapters."""
    adapters = vars(transformer).get("peft_config", {}).values()
    return next((vars(adapter)["positions"] for adapter in adapters if "positions" in vars(adapter)), "unope")


@contextmanager
def appended(
    transformer: nn.Module,
    references: Float[Tensor, "batch reference_tokens packed"],
    ids: Float[Tensor, "reference_tokens 3"],
    visible: Bool[Tensor, "batch queries reference_tokens"] | None,
) -> Iterator[None]:
    """Context in which every call of the transformer includes the references, also calls by stock pipelines.

    ``visible`` says which reference tokens each token of the whole sequence may attend to, with one row if that is the
    same for all; ``None`` says that all can be seen.
    """
    num_kept = 0

    def append(_module: nn.Module, _args: tuple, call: dict) -> tuple[tuple, dict]:
        nonlocal num_kept
        picture = call["hidden_states"]
        num_kept = picture.shape[1]
        call["hidden_states"] = torch.cat([picture, references.to(picture)], 1)
        call["img_ids"] = torch.cat([call["img_ids"].float(), ids.to(picture.device)])
        call["txt_ids"] = call["txt_ids"].float()
        if visible is not None:
            num_others = call["encoder_hidden_states"].shape[1] + num_kept
            mask = nn.functional.pad(visible, (num_others, 0), value=True)[:, None]
            call["joint_attention_kwargs"] = (call.get("joint_attention_kwargs") or {}) | {"attention_mask": mask}
        return _args, call

    def cut(_module: nn.Module, _args: tuple, output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (output[0][:, :num_kept],)

    handles = [transformer.register_forward_pre_hook(append, with_kwargs=True), transformer.register_forward_hook(cut)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
