"""Human preference by HPS v2.1, a CLIP model fine-tuned on comparisons (arXiv:2306.09341), through open_clip."""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mcpipe.core.texts import SPECIAL, report_cut, windows
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

    def to_main_memory(self) -> None:
        """Move the weights to main memory."""
        self._model.to("cpu")

    def to_device(self) -> None:
        """Move the weights to the device on which the model runs."""
        self._model.to(self._device)

    def scores(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Float[np.ndarray, " B"]:
        """The cosine of each image and its own prompt, in [-1, 1], without the customary factor of 100.

        Of a prompt that is longer than the text encoder reads, it is the mean over the prompt's windows (see
        `mcpipe.core.texts.windows`).
        """
        import torch
        from PIL import Image

        images = torch.stack([self._transform(Image.fromarray(picture)) for picture in pictures]).to(self._device)
        parts = [self._windows(prompt) for prompt in prompts]
        tokens = self._tokenizer([*chain.from_iterable(parts)]).to(self._device)
        with torch.no_grad():
            seen = self._model.encode_image(images, normalize=True)
            read = self._model.encode_text(tokens, normalize=True).split([len(each) for each in parts])
        prompted = torch.stack([each[0] if len(each) == 1 else each.mean(0) for each in read])
        return (seen * prompted).sum(dim=-1).cpu().numpy()

    def _windows(self, prompt: str) -> list[str]:
        """The parts in which a prompt is read; a warning names what does not fit even so."""
        longest = self._tokenizer.context_length or DEFAULT_LENGTH
        parts = windows(prompt, lambda part: len(self._tokenizer.encode(part)), longest - SPECIAL)
        for part in parts:
            if lost := self._tokenizer.encode(part)[longest - SPECIAL :]:
                report_cut("HPS", longest, part, self._tokenizer.decode(lost).strip())
        return parts

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
