"""Objects located by a phrase with Grounding DINO (arXiv:2303.05499)."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from mcpipe.models.checkpoints import PROCESSING, checkpoint_folder, device_name, loaded, pretrained
from mcpipe.models.protocols import Picture


class GroundingDino:
    """A detector from a folder saved by ``GroundingDinoForObjectDetection`` and its processor, of any size."""

    def __init__(self, folder: Path, box_threshold: float) -> None:
        """Load model and processor on the best available device.

        ``box_threshold`` is the certainty, in [0, 1], above which a box counts (0.35 in PSRBench's scripts).

        Raises:
            FileNotFoundError: the folder or one of its parts is missing.
            ValueError: the files are damaged or belong to another model.
        """
        from transformers import AutoProcessor, GroundingDinoForObjectDetection, GroundingDinoProcessor

        checkpoint_folder(folder, "grounder", PROCESSING, "tokenizer_config.json")
        self._box_threshold = box_threshold
        self._device = device_name()
        model = pretrained(GroundingDinoForObjectDetection.from_pretrained, folder, "grounder")
        if model.config.model_type != "grounding-dino":
            raise ValueError(f"{folder} is no usable grounder: it holds a {model.config.model_type} model")
        self._model = model.eval().to(self._device)
        processor = loaded(
            lambda: AutoProcessor.from_pretrained(folder, local_files_only=True), folder, "grounder processor"
        )
        if not isinstance(processor, GroundingDinoProcessor):
            raise ValueError(f"{folder} is no usable grounder: its processor is a {type(processor).__name__}")  # noqa: TRY004
        self._processor = processor

    def boxes(self, picture: Picture, phrase: str) -> tuple[Float[np.ndarray, "N 4"], Float[np.ndarray, " N"]]:
        """Boxes ``x0 y0 x1 y1`` in pixels of what a phrase describes, in the model's own order, and their certainties.

        The phrase is given as the model was trained: in lower case, ended by a full stop. A box's certainty is the
        highest one of its tokens, in [0, 1].

        Raises:
            ValueError: the phrase has more tokens than the model reads.
        """
        import torch
        from PIL import Image

        text = f"{phrase.strip().lower().rstrip('.')}."
        inputs = self._processor(images=Image.fromarray(picture), text=text, return_tensors="pt").to(self._device)
        length, longest = inputs["input_ids"].shape[1], self._model.config.max_text_len
        if length > longest:
            raise ValueError(f"the grounder reads {longest} tokens, and {phrase!r} has {length}; shorten the phrase")
        with torch.no_grad():
            outputs = self._model(**inputs)
        # The threshold of texts selects words of a label, which one phrase does not need.
        (detections,) = self._processor.post_process_grounded_object_detection(
            outputs,
            inputs["input_ids"],
            threshold=self._box_threshold,
            text_threshold=self._box_threshold,
            target_sizes=[picture.shape[:2]],
        )
        return detections["boxes"].cpu().numpy().reshape(-1, 4), detections["scores"].cpu().numpy()
