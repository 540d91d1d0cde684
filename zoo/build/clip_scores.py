"""Figures of CLIP's card: retrieval on unseen scenes."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel, CLIPProcessor

from zoo.build.clip_input import as_input, words
from zoo.build.forms import PREFIX, captions_by_form
from zoo.build.pictures import Pictures
from zoo.build.things import ThingPictures
from zoo.build.training import batches

AMONG = 64
"""Number of images or texts in a retrieval."""

THINGS = "things_"
"""What stands before the figures on scenes of things."""


@torch.no_grad()
def measure(model: CLIPModel, processor: CLIPProcessor, pictures: Pictures) -> dict[str, float]:
    """Retrieval on unseen scenes by captions of each form, by image and by text, among `AMONG`, and mean cosines."""
    squares = pictures.small(processor.image_processor.crop_size["height"])
    return {
        f"{PREFIX[form]}{name}": value
        for form, captions in captions_by_form(pictures).items()
        for name, value in retrieval(cosines(model, processor, squares, captions)).items()
    }


@torch.no_grad()
def measure_things(model: CLIPModel, processor: CLIPProcessor, things: ThingPictures) -> dict[str, float]:
    """Retrieval on unseen scenes of things by captions that describe them, as `measure`."""
    squares = things.small(processor.image_processor.crop_size["height"])
    figures = retrieval(cosines(model, processor, squares, things.captions()))
    return {f"{THINGS}{name}": value for name, value in figures.items()}


def cosines(model: CLIPModel, processor: CLIPProcessor, squares: np.ndarray, captions: list[str]) -> Tensor:
    """Cosines of all images (rows) with all texts (columns)."""
    parts = list(batches(len(squares), AMONG))
    seen = [model.get_image_features(pixel_values=as_input(squares[part], processor)).pooler_output for part in parts]
    read = [model.get_text_features(**words(processor, captions[part])).pooler_output for part in parts]
    return functional.normalize(torch.cat(seen), dim=-1) @ functional.normalize(torch.cat(read), dim=-1).T


def retrieval(cosines: Tensor) -> dict[str, float]:
    """Recalls of images (rows) and their texts (columns) among `AMONG`, averaged over draws, and mean cosines."""
    rng = np.random.default_rng(0)
    recalls: dict[str, list[float]] = {"recall_at_1_by_text": [], "recall_at_1_by_picture": []}
    for _ in range(50):
        rows = torch.from_numpy(rng.permutation(len(cosines))[:AMONG])
        part, places = cosines[rows][:, rows], torch.arange(len(rows))
        recalls["recall_at_1_by_text"].append((part.argmax(dim=0) == places).float().mean().item())
        recalls["recall_at_1_by_picture"].append((part.argmax(dim=1) == places).float().mean().item())
    matching = cosines.diagonal()
    figures = {name: float(np.mean(values)) for name, values in recalls.items()}
    return figures | {
        "cosine_matching": float(matching.mean()),
        "cosine_other": float((cosines.sum() - matching.sum()) / (cosines.numel() - len(matching))),
    }
