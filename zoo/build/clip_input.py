"""Images and texts as `CLIPModel` takes them."""

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPProcessor

LENGTH = 77
"""Tokens of a text at most."""


def as_input(pictures: np.ndarray, processor: CLIPProcessor) -> Tensor:
    """Images (N, S, S, 3) uint8 as the model takes them; equal to the processor's work on images of that size."""
    images = processor.image_processor
    mean, std = torch.tensor(images.image_mean), torch.tensor(images.image_std)
    scaled = torch.from_numpy(np.ascontiguousarray(pictures)).float().div(255)
    return ((scaled - mean) / std).permute(0, 3, 1, 2)


def words(processor: CLIPProcessor, texts: list[str]) -> dict[str, Tensor]:
    """Token ids of texts and their mask."""
    return dict(processor.tokenizer(texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"))
