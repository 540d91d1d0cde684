"""Joint embeddings of images and texts by CLIP (scores CLIP-T and CLIP-I, and the text reward)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mcpipe.core.texts import warn_if_cut
from mcpipe.models.checkpoints import PROCESSING, checkpoint_folder, device_name, loaded, pretrained
from mcpipe.models.protocols import Picture


class Clip:
    """An encoder from a folder saved by ``CLIPModel`` and ``CLIPProcessor``."""

    def __init__(self, folder: Path) -> None:
        """Load model and processor on the best available device.

        Raises:
            FileNotFoundError: the folder or one of its parts is missing.
            ValueError: the files are damaged or belong to another model.
        """
        from transformers import CLIPModel, CLIPProcessor

        checkpoint_folder(folder, "CLIP", PROCESSING, "tokenizer_config.json")
        self._device = device_name()
        self._model = pretrained(CLIPModel.from_pretrained, folder, "CLIP model").eval().to(self._device)
        self._processor = loaded(
            lambda: CLIPProcessor.from_pretrained(folder, local_files_only=True), folder, "CLIP processor"
        )

    def pictures(self, pictures: Sequence[Picture]) -> Float[np.ndarray, "B D"]:
        """Unit embeddings of images."""
        import torch
        from PIL import Image
        from torch.nn import functional

        images = [Image.fromarray(picture) for picture in pictures]
        inputs = self._processor(images=images, return_tensors="pt").to(self._device)
        with torch.no_grad():
            features = self._model.get_image_features(**inputs).pooler_output
        return functional.normalize(features, dim=-1).cpu().numpy()

    def texts(self, texts: Sequence[str]) -> Float[np.ndarray, "B D"]:
        """Unit embeddings of texts, cut at the length of the text encoder; a warning names the words that are lost."""
        import torch
        from torch.nn import functional

        longest = self._model.config.text_config.max_position_embeddings
        for text in texts:
            warn_if_cut("CLIP scorer", self._processor.tokenizer, text, longest)
        inputs = self._processor(
            text=list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        with torch.no_grad():
            features = self._model.get_text_features(**inputs.to(self._device)).pooler_output
        return functional.normalize(features, dim=-1).cpu().numpy()
