"""Human preference by HPS v2.1, a CLIP model fine-tuned on comparisons (arXiv:2306.09341), through open_clip."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mcpipe.core.texts import report_cut
from mcpipe.models.checkpoints import device_name, loaded, one_file
from mcpipe.models.protocols import Picture

PUBLISHED_ARCHITECTURE = "ViT-H-14"
DEFAULT_LENGTH = 77
"""Tokens that CLIP's text encoder reads."""
CHECKPOINT, CONFIGURATION = "HPS_v2.1*.pt", "ViT*.json"


class HpsV2_1:  # noqa: N801  the model's published name
    """A scorer from a folder with the weights ``HPS_v2.1*.pt`` and, if open_clip lacks it, the model configuration.

    The published checkpoint belongs to ViT-H-14, which open_clip includes; any other architecture needs a file
    NAME.json in open_clip's format beside its weights.
    """

    def __init__(self, folder: Path) -> None:
        """Load the checkpoint on the best available device.

        Raises:
            FileNotFoundError: the folder or its weights are missing.
            ValueError: the files are damaged or belong to another model.
        """
        import open_clip

        checkpoint = one_file(folder, "HPS", CHECKPOINT)
        architecture = self._architecture(folder)
        self._device = device_name()
        model, self._transform = loaded(lambda: _load(architecture, checkpoint), checkpoint, "HPS v2.1 checkpoint")
        self._model = model.eval().to(self._device)
        self._tokenizer = open_clip.get_tokenizer(architecture)
        if not isinstance(self._tokenizer, open_clip.SimpleTokenizer):
            raise ValueError(f"{folder} is no usable HPS v2.1 checkpoint: its tokenizer is not CLIP's")  # noqa: TRY004

    def scores(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Float[np.ndarray, " B"]:
        """The cosine of each image and its own prompt, in [-1, 1], without the customary factor of 100.

        Prompts are cut at the length of the text encoder; a warning names the words that are lost.
        """
        import torch
        from PIL import Image

        images = torch.stack([self._transform(Image.fromarray(picture)) for picture in pictures]).to(self._device)
        for prompt in prompts:
            self._warn_if_cut(prompt)
        tokens = self._tokenizer(list(prompts)).to(self._device)
        with torch.no_grad():
            seen = self._model.encode_image(images, normalize=True)
            read = self._model.encode_text(tokens, normalize=True)
        return (seen * read).sum(dim=-1).cpu().numpy()

    def _warn_if_cut(self, prompt: str) -> None:
        ids, longest = self._tokenizer.encode(prompt), self._tokenizer.context_length or DEFAULT_LENGTH
        # Two tokens mark the beginning and the end.
        if len(ids) > longest - 2:
            report_cut("HPS", longest, prompt, self._tokenizer.decode(ids[longest - 2 :]).strip())

    def _architecture(self, folder: Path) -> str:
        """The model's name in open_clip, registered from the configuration in the folder if there is one."""
        import open_clip

        if not any(folder.glob(CONFIGURATION)):
            return PUBLISHED_ARCHITECTURE
        file = one_file(folder, "HPS", CONFIGURATION)
        loaded(lambda: json.loads(file.read_text(encoding="utf-8"))["embed_dim"], file, "open_clip model configuration")
        open_clip.add_model_config(file)
        return file.stem


def _load(architecture: str, checkpoint: Path):  # noqa: ANN202  the vendor's types would import torch here
    import open_clip

    # As in hpsv2, the longer side is fitted and the rest padded, so that no part of the image is lost.
    model, _, transform = open_clip.create_model_and_transforms(
        architecture, pretrained=str(checkpoint), precision="fp32", image_resize_mode="longest", weights_only=True
    )
    return model, transform
