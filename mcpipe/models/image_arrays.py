"""Arrays and tensors as images: accepted shapes, types and values, and error messages for the others."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

ImageInput: TypeAlias = Union[str, Path, Image.Image, np.ndarray, "Tensor"]
"""What `read_image` accepts."""
ACCEPTED = (
    "a path, a PIL image, a numpy array (H x W or H x W x 1, 3 or 4) or a tensor (also 1, 3 or 4 x H x W); "
    "arrays and tensors are uint8, or floating point in [0, 1]"
)
CHANNELS = (1, 3, 4)
HALF_A_LEVEL = 0.5 / 255
"""Maximum distance of a float from [0, 1], as an effect of rounding."""


def array_of(source: object, name: str) -> np.ndarray:
    """A numpy array unchanged, or a tensor as an array with channels last.

    Raises:
        ValueError: the source is neither.
    """
    if isinstance(source, np.ndarray):
        return source
    import torch

    if not isinstance(source, torch.Tensor):
        raise ValueError(f"{name} is of type {type(source).__name__}; accepted are {ACCEPTED}")  # noqa: TRY004  documented
    if source.layout != torch.strided or source.device.type == "meta":
        raise ValueError(f"{name} is a tensor without plain values ({source.layout}, {source.device})")
    tensor = source.detach().cpu()
    if (
        tensor.ndim == 3 and tensor.shape[0] in CHANNELS
    ):  # also if both ends could be channels, since torch puts them first
        tensor = tensor.movedim(0, -1)
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def image_of(values: np.ndarray, name: str) -> Image.Image:
    """Pillow's image of an array with channels last.

    Raises:
        ValueError: the shape or the type is not accepted, or values are out of range.
    """
    if not values.size or values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in CHANNELS):
        raise ValueError(f"{name} has the shape {_shape(values)}; accepted are {ACCEPTED}")
    if np.issubdtype(values.dtype, np.floating):
        least, most = values.min(), values.max()
        if not -HALF_A_LEVEL <= least <= most <= 1 + HALF_A_LEVEL:  # false for NaN, too
            raise ValueError(f"{name} holds values from {least:g} to {most:g}; accepted are {ACCEPTED}")
        values = np.rint(values.astype(np.float32).clip(0, 1) * 255).astype(np.uint8)
    if values.dtype != np.uint8:
        raise ValueError(f"{name} holds values of type {values.dtype}; accepted are {ACCEPTED}")
    return Image.fromarray(np.ascontiguousarray(values[:, :, 0] if values.shape[2:] == (1,) else values))


def _shape(values: np.ndarray) -> str:
    return " x ".join(map(str, values.shape)) or "of a single number"
