"""Objects located by a phrase with Florence-2 (arXiv:2311.06242), by its task of phrase grounding."""

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mcpipe.models.checkpoints import PROCESSING, checkpoint_folder, device_name, loaded, pretrained
from mcpipe.models.protocols import Picture

if TYPE_CHECKING:
    from torch import Tensor

TASK = "<CAPTION_TO_PHRASE_GROUNDING>"
BINS = 1000
"""Locations of each axis; the token ``<loc_k>`` stands for the middle of the k-th one."""

NEAR = 25
"""Distance in bins within which a location counts as the chosen one when certainty is measured."""

MOST_TOKENS = 128
"""Longest answer: a phrase with up to 30 boxes."""


class Florence2:
    """A detector from a folder saved by ``Florence2ForConditionalGeneration`` and its processor, of any size."""

    def __init__(self, folder: Path, min_certainty: float) -> None:
        """Load model and processor on the best available device; ``min_certainty`` in [0, 1] is a box's lowest one.

        Raises:
            FileNotFoundError: the folder or one of its parts is missing.
            ValueError: the files are damaged or belong to another model.
        """
        from transformers import AutoConfig, AutoProcessor, Florence2ForConditionalGeneration, Florence2Processor

        checkpoint_folder(folder, "grounder", PROCESSING, "tokenizer_config.json")
        self._min_certainty, self._device = min_certainty, device_name()
        config = loaded(lambda: AutoConfig.from_pretrained(folder, local_files_only=True), folder, "grounder")
        if config.model_type != "florence2":
            raise ValueError(f"{folder} is no usable grounder: it holds a {config.model_type} model")
        model = pretrained(Florence2ForConditionalGeneration.from_pretrained, folder, "grounder")
        self._model = model.eval().to(self._device)
        processor = loaded(
            lambda: AutoProcessor.from_pretrained(folder, local_files_only=True), folder, "grounder processor"
        )
        if not isinstance(processor, Florence2Processor):
            raise ValueError(f"{folder} is no usable grounder: its processor is a {type(processor).__name__}")  # noqa: TRY004
        self._processor, tokenizer = processor, processor.tokenizer
        self._locations = tokenizer.convert_tokens_to_ids([f"<loc_{place}>" for place in range(BINS)])
        if tokenizer.unk_token_id in self._locations or None in self._locations:
            raise ValueError(f"{folder} is no usable grounder: its tokenizer lacks tokens <loc_0> to <loc_{BINS - 1}>")

    def boxes(self, picture: Picture, phrase: str) -> tuple[Float[np.ndarray, "N 4"], Float[np.ndarray, " N"]]:
        """Boxes ``x0 y0 x1 y1`` in pixels of what a phrase describes, in the order of the answer, and certainties.

        Florence-2 gives no certainty of its own: that of a box is the probability, the least one of its four edges,
        that the edge lies within `NEAR` bins of where it was put. The library's own reading of answers rounds to
        whole pixels of the image, which are coarser than bins in small ones, and so it is not used.

        Raises:
            ValueError: the phrase has more tokens than the model reads.
        """
        import torch
        from PIL import Image

        text = f"{TASK}{phrase.strip().lower().rstrip('.')}"
        inputs = self._processor(images=Image.fromarray(picture), text=text, return_tensors="pt").to(self._device)
        length, longest = inputs["input_ids"].shape[1], self._model.config.text_config.max_position_embeddings
        if length > longest:
            raise ValueError(f"the grounder reads {longest} tokens, and {phrase!r} has {length}; shorten the phrase")
        with torch.no_grad():
            answer = self._model.generate(
                **inputs, max_new_tokens=min(MOST_TOKENS, longest - 1), num_beams=1, do_sample=False,
                output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        tokens = answer.sequences[0, -len(answer.logits) :].tolist()
        answered = [self._box(group, answer.logits) for group in self._groups(tokens)]
        height, width = picture.shape[:2]
        kept = [
            (np.multiply(box, [width, height] * 2), certainty)
            for box, certainty in answered
            if box[0] < box[2] and box[1] < box[3] and certainty >= self._min_certainty
        ]
        boxes = np.array([box for box, _ in kept], np.float64).reshape(-1, 4)
        return boxes, np.array([certainty for _, certainty in kept], np.float64)

    def _groups(self, tokens: list[int]) -> list[list[tuple[int, int]]]:
        """Places in the answer and bins of each box: every four locations in a row."""
        bins = [
            re.fullmatch(r"<loc_(\d+)>", token) for token in self._processor.tokenizer.convert_ids_to_tokens(tokens)
        ]
        runs = itertools.groupby(enumerate(bins), key=lambda item: item[1] is not None)
        located = [[(place, int(match[1])) for place, match in run if match] for is_run, run in runs if is_run]
        return [run[start : start + 4] for run in located for start in range(0, len(run) - 3, 4)]

    def _box(self, group: list[tuple[int, int]], logits: "tuple[Tensor, ...]") -> tuple[list[float], float]:
        """The box in shares of width and height, and its certainty."""
        certainties = []
        for place, chosen in group:
            share = logits[place][0].float().softmax(dim=-1)[self._locations]
            certainties.append(float(share[max(chosen - NEAR, 0) : chosen + NEAR + 1].sum()))
        return [(chosen + 0.5) / BINS for _, chosen in group], min(min(certainties), 1.0)
