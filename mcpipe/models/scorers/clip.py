"""Joint embeddings of images and texts by CLIP (CLIP-T and CLIP-I, or the text reward)."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mcpipe.core.texts import clip_windows, warn_if_cut
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

    def to_main_memory(self) -> None:
        """Move the weights to main memory."""
        self._model.to("cpu")

    def to_device(self) -> None:
        """Move the weights to the device on which the model runs."""
        self._model.to(self._device)

    @property
    def logit_scale(self) -> float:
        """The factor on cosines that the model was trained with, about 100."""
        return float(self._model.logit_scale.detach().exp())

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
        """Embeddings of texts: unit length, or the mean of the unit embeddings of a longer text's windows.

        The product of such a mean with an image is the mean of the windows' cosines (see `mcpipe.core.texts.windows`).
        """
        import torch
        from torch.nn import functional

        longest, tokenizer = self._model.config.text_config.max_position_embeddings, self._processor.tokenizer
        parts = [clip_windows(tokenizer, text, longest) for text in texts]
        for part in chain.from_iterable(parts):
            warn_if_cut("CLIP scorer", tokenizer, part, longest)
        inputs = self._processor(
            text=[*chain.from_iterable(parts)], padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        with torch.no_grad():
            features = self._model.get_text_features(**inputs.to(self._device)).pooler_output
        units = functional.normalize(features, dim=-1).split([len(each) for each in parts])
        return torch.stack([each[0] if len(each) == 1 else each.mean(0) for each in units]).cpu().numpy()
