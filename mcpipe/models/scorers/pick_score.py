"""Human preference by a CLIP model trained on choices between two images, such as PickScore (arXiv:2305.01569)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mcpipe.models.protocols import Picture
from mcpipe.models.scorers.clip import Clip


class PickScore:
    """A scorer from a folder saved by ``CLIPModel`` and ``CLIPProcessor``."""

    def __init__(self, folder: Path) -> None:
        """Load model and processor on the best available device.

        Raises:
            FileNotFoundError: the folder or one of its parts is missing.
            ValueError: the files are damaged or belong to another model.
        """
        self._clip = Clip(folder)

    def scores(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Float[np.ndarray, " B"]:
        """The cosine of each image and its own prompt, times the model's own logit scale, as PickScore is published."""
        cosines = (self._clip.pictures(pictures) * self._clip.texts(prompts)).sum(axis=-1)
        return cosines * self._clip.logit_scale
