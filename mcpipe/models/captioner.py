"""Sentences about images by Qwen2.5-VL: captions of samples, prompts of the benchmark."""

from collections.abc import Sequence
from pathlib import Path

from mcpipe.models.checkpoints import PROCESSING, checkpoint_folder, device_name, loaded, pretrained
from mcpipe.models.protocols import Picture

LARGEST_SEED = 2**32


class Qwen2_5VL:  # noqa: N801  the model's published name
    """A captioner from a folder saved by ``Qwen2_5_VLForConditionalGeneration`` and its processor, of any size."""

    def __init__(self, folder: Path) -> None:
        """Load model and processor on the best available device.

        Raises:
            FileNotFoundError: the folder or one of its parts is missing.
            ValueError: the files are damaged or belong to another model.
        """
        from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

        checkpoint_folder(folder, "captioner", PROCESSING, "tokenizer_config.json")
        self._device = device_name()
        dtype = "auto" if self._device == "cuda" else "float32"
        model = pretrained(Qwen2_5_VLForConditionalGeneration.from_pretrained, folder, "captioner", dtype=dtype)
        self._model = model.eval().to(self._device)
        self._processor = loaded(
            lambda: AutoProcessor.from_pretrained(folder, local_files_only=True), folder, "captioner processor"
        )

    def to_main_memory(self) -> None:
        """Move the weights to main memory."""
        self._model.to("cpu")

    def to_device(self) -> None:
        """Move the weights to the device on which the model runs."""
        self._model.to(self._device)

    def answer(
        self, pictures: Sequence[Picture], instruction: str, *, temperature: float, seed: int, max_tokens: int
    ) -> str:
        """One answer about images, in the order in which the instruction numbers them.

        ``temperature`` 0 decodes greedily; otherwise the answer is sampled, reproducibly from ``seed``.
        """
        import torch
        from PIL import Image
        from qwen_vl_utils import process_vision_info

        contents = [{"type": "image", "image": Image.fromarray(picture)} for picture in pictures]
        messages = [{"role": "user", "content": [*contents, {"type": "text", "text": instruction}]}]
        text = self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        images, videos, *_ = process_vision_info(messages)
        inputs = self._processor(text=[text], images=images, videos=videos, padding=True, return_tensors="pt")
        inputs = inputs.to(self._device)
        sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
        # generate() draws from the global generator only; fork_rng restores its state.
        with torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(seed % LARGEST_SEED)
            tokens = self._model.generate(**inputs, max_new_tokens=max_tokens, **sampling)
        written = tokens[:, inputs["input_ids"].shape[1] :]
        return self._processor.batch_decode(written, skip_special_tokens=True)[0].strip()
