"""Embeddings of images by DINO or DINOv2 (score DINO-I, and the object reward)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mcpipe.models.checkpoints import PROCESSING, checkpoint_folder, device_name, loaded, pretrained
from mcpipe.models.protocols import Picture

KINDS = ("vit", "dinov2")
"""Model types in the configurations of DINO and DINOv2."""


class Dino:
    """An encoder from a folder saved by ``ViTModel`` (DINO) or ``Dinov2Model`` and an image processor."""

    def __init__(self, folder: Path) -> None:
        """Load model and preprocessing on the best available device.

        Raises:
            FileNotFoundError: the folder or one of its parts is missing.
            ValueError: the files are damaged or belong to another model.
        """
        from transformers import AutoImageProcessor, AutoModel

        checkpoint_folder(folder, "DINO", PROCESSING)
        self._device = device_name()
        model = pretrained(AutoModel.from_pretrained, folder, "DINO model")
        if model.config.model_type not in KINDS:
            raise ValueError(f"{folder} is no usable DINO model: it holds a {model.config.model_type} model")
        self._model = model.eval().to(self._device)
        self._processor = loaded(
            lambda: AutoImageProcessor.from_pretrained(folder, local_files_only=True), folder, "DINO processor"
        )

    def pictures(self, pictures: Sequence[Picture]) -> Float[np.ndarray, "B D"]:
        """Unit embeddings of the class token, after the last norm and before any pooling layer."""
        import torch
        from PIL import Image
        from torch.nn import functional

        images = [Image.fromarray(picture) for picture in pictures]
        inputs = self._processor(images=images, return_tensors="pt").to(self._device)
        with torch.no_grad():
            tokens = self._model(pixel_values=inputs["pixel_values"]).last_hidden_state
        return functional.normalize(tokens[:, 0], dim=-1).cpu().numpy()
