"""Human preference by HPSv3 (arXiv:2508.03789): a Qwen2-VL whose state at one special token a small head reads.

The published package needs transformers 4.45; this reads its weights with the installed one. Two of its habits matter:
the area of every image is fixed, and positions count tokens one by one. That release computed the three-dimensional
positions of Qwen2-VL outside of the network's forward pass, where HPSv3 never asked for them.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from jaxtyping import Float

from mcpipe.models.checkpoints import PROCESSING, checkpoint_folder, device_name, loaded, one_file
from mcpipe.models.protocols import Picture
from mcpipe.models.scorers.hpsv3_prompt import REWARD_TOKEN, TEMPLATE

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Qwen2VLForConditionalGeneration

CHECKPOINT = "HPSv3*.safetensors"
NUM_PIXELS = 256 * 28 * 28
"""Area to which images are resized, as in training: 256 tokens of 28 x 28 pixels."""
HEAD = "rm_head."
HEAD_LAYERS = (0, 3, 5)
"""Numbers of the head's linear layers; ReLU and dropout stand between them."""
OUTPUTS = 2
"""Mean and logarithm of the standard deviation."""
DROPOUT = 0.05
EMBEDDINGS = ("model.embed_tokens.weight", "model.language_model.embed_tokens.weight")
"""Name of the token embeddings before and since transformers 4.52."""
UNUSED = "lm_head.weight"
TOGETHER = 8
"""Images in a forward pass."""


class HpsV3:
    """A scorer from a folder with weights ``HPSv3*.safetensors`` and configuration and processor of its Qwen2-VL.

    Published are the weights alone (MizzenAI/HPSv3); the other files are those of Qwen/Qwen2-VL-7B-Instruct.
    """

    def __init__(self, folder: Path) -> None:
        """Load model, head and processor on the best available device.

        Raises:
            FileNotFoundError: the folder or one of its parts is missing.
            ValueError: the files are damaged or belong to another model, or the head is missing or of another width.
        """
        from transformers import AddedToken, AutoProcessor
        from transformers.utils import logging

        checkpoint_folder(folder, "HPSv3", PROCESSING, "tokenizer_config.json", "config.json")
        file = one_file(folder, "HPSv3", CHECKPOINT)
        logging.disable_progress_bar()
        self._device = device_name()
        model, head = read_checkpoint(file, on_gpu=self._device == "cuda")
        self._model, self._head = model.model.eval().to(self._device), head.eval().to(self._device)
        self._processor = loaded(
            lambda: AutoProcessor.from_pretrained(folder, local_files_only=True), folder, "HPSv3 processor"
        )
        tokenizer = self._processor.tokenizer
        tokenizer.padding_side = "right"
        tokenizer.add_tokens([AddedToken(REWARD_TOKEN, normalized=False, special=True)], special_tokens=True)
        self._reward_token = tokenizer.convert_tokens_to_ids(REWARD_TOKEN)
        num_embedded = self._model.get_input_embeddings().num_embeddings
        if self._reward_token >= num_embedded:
            raise ValueError(
                f"{file} knows {num_embedded} tokens, so that {REWARD_TOKEN} has none; is the tokenizer Qwen2-VL's?"
            )
        self._num_pixels = min(NUM_PIXELS, self._processor.image_processor.size["longest_edge"])

    def to_main_memory(self) -> None:
        """Move the weights to main memory."""
        self._model.to("cpu")
        self._head.to("cpu")

    def to_device(self) -> None:
        """Move the weights to the device on which the model runs."""
        self._model.to(self._device)
        self._head.to(self._device)

    def scores(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Float[np.ndarray, " B"]:
        """Mean of the preference for each image with its own prompt: unbounded, several units."""
        return self.estimates(pictures, prompts)[:, 0]

    def estimates(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Float[np.ndarray, "B 2"]:
        """Mean and standard deviation of the preference for each image with its own prompt."""
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(pictures), TOGETHER):
                part = slice(start, start + TOGETHER)
                mean, log_deviation = self._head_outputs(pictures[part], prompts[part]).unbind(dim=-1)
                parts.append(torch.stack([mean, log_deviation.exp()], dim=-1).cpu().numpy())
        return np.concatenate(parts)

    def _head_outputs(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> "Tensor":
        """Mean and logarithm of the standard deviation, (B, 2), float32."""
        inputs = self._inputs(pictures, prompts).to(self._device)
        tokens = inputs["input_ids"]
        states = self._model(
            input_ids=tokens,
            attention_mask=inputs["attention_mask"],
            position_ids=plain_positions(tokens),
            pixel_values=inputs["pixel_values"],
            image_grid_thw=inputs["image_grid_thw"],
            use_cache=False,
        ).last_hidden_state
        return self._head(at_token(states, tokens, self._reward_token).float())

    def _inputs(self, pictures: Sequence[Picture], prompts: Sequence[str]):  # noqa: ANN202  the vendor's type
        from PIL import Image
        from qwen_vl_utils import process_vision_info

        area = {"min_pixels": self._num_pixels, "max_pixels": self._num_pixels}
        conversations = [
            conversation({"image": Image.fromarray(picture), **area}, prompt)
            for picture, prompt in zip(pictures, prompts, strict=True)
        ]
        images, *_ = process_vision_info(conversations, image_patch_size=self._processor.image_processor.patch_size)
        return self._processor(
            text=self._processor.apply_chat_template(conversations, tokenize=False, add_generation_prompt=True),
            images=images,
            padding=True,
            return_tensors="pt",
            do_resize=False,
        )


def conversation(image: Mapping[str, object], prompt: str) -> list[dict]:
    """The messages in which HPSv3 is shown an image and asked how well people like it for a prompt."""
    content = [{"type": "image", **image}, {"type": "text", "text": TEMPLATE.format(text_prompt=prompt)}]
    return [{"role": "user", "content": content}]


def plain_positions(tokens: "Tensor") -> "Tensor":
    """Positions (3, B, L) of tokens (B, L): time, row and column all count tokens, also within images."""
    import torch

    return torch.arange(tokens.shape[1], device=tokens.device).expand(3, *tokens.shape)


def at_token(states: "Tensor", tokens: "Tensor", token: int) -> "Tensor":
    """States (B, D) of (B, L, D) at the last occurrence of a token in each row of (B, L)."""
    import torch

    places = torch.arange(tokens.shape[1], device=tokens.device)
    last = torch.where(tokens == token, places, -1).argmax(dim=1)
    return states[torch.arange(len(tokens), device=tokens.device), last]


def reward_head(widths: Sequence[int]) -> "nn.Sequential":
    """The head from the language model's width through two hidden widths to two outputs, with published names."""
    from torch import nn

    first, second, third = (nn.Linear(*pair) for pair in zip(widths[:-1], widths[1:], strict=True))
    return nn.Sequential(first, nn.ReLU(), nn.Dropout(DROPOUT), second, nn.ReLU(), third)


def read_checkpoint(file: Path, *, on_gpu: bool) -> "tuple[Qwen2VLForConditionalGeneration, nn.Sequential]":
    """The network and its head from one file; names of weights may be those of any release of transformers.

    Weights of the network keep their type on a GPU and are float32 elsewhere; those of the head are always float32.

    Raises:
        ValueError: the file is damaged, or does not hold a head and a Qwen2-VL of the configuration beside it.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, Qwen2VLConfig, Qwen2VLForConditionalGeneration

    folder = file.parent
    config = loaded(lambda: AutoConfig.from_pretrained(folder, local_files_only=True), folder, "configuration")
    if not isinstance(config, Qwen2VLConfig):
        raise ValueError(f"{folder / 'config.json'} is no Qwen2-VL's but of type {config.model_type}")  # noqa: TRY004
    weights = loaded(lambda: load_file(file), file, "HPSv3 checkpoint")
    head = _head_of(weights, config.text_config.hidden_size, file)
    embeddings = next((weights[name] for name in EMBEDDINGS if name in weights), None)
    if embeddings is None:
        raise ValueError(f"{file} is no usable HPSv3 checkpoint: it has no {EMBEDDINGS[0]}")
    config.text_config.vocab_size = len(embeddings)
    load = cast(
        "Callable[..., tuple[Qwen2VLForConditionalGeneration, dict]]", Qwen2VLForConditionalGeneration.from_pretrained
    )
    network = {name: weight for name, weight in weights.items() if not name.startswith(HEAD)}
    dtype = embeddings.dtype if on_gpu else torch.float32
    model, report = loaded(
        lambda: load(None, config=config, state_dict=network, dtype=dtype, output_loading_info=True),
        file,
        "HPSv3 checkpoint",
    )
    faults = {
        "missing": sorted(set(report["missing_keys"]) - {UNUSED}),
        "unknown": sorted(report["unexpected_keys"]),
        "of another shape": sorted(str(fault) for fault in report["mismatched_keys"]),
    }
    if any(faults.values()):
        counted = ", ".join(f"{len(names)} weights {kind}" for kind, names in faults.items() if names)
        raise ValueError(
            f"{file} is no whole HPSv3 checkpoint: {counted}, first {next(filter(None, faults.values()))[0]}"
        )
    return model, head


def _head_of(weights: Mapping[str, "Tensor"], width: int, file: Path) -> "nn.Sequential":
    """The head among the weights of a file, for states of a width.

    Raises:
        ValueError: there is no such head.
    """
    own = {name.removeprefix(HEAD): weight.float() for name, weight in weights.items() if name.startswith(HEAD)}
    expected = {f"{layer}.{part}" for layer in HEAD_LAYERS for part in ("weight", "bias")}
    if set(own) != expected:
        raise ValueError(f"{file} has no reward head: {len(expected & set(own))} of its 6 weights {HEAD}* are there")
    matrices = [own[f"{layer}.weight"] for layer in HEAD_LAYERS]
    if (features := matrices[0].shape[-1]) != width:
        raise ValueError(f"the reward head of {file} reads states of width {features}; the configuration says {width}")
    if (num_outputs := len(matrices[-1])) != OUTPUTS:
        raise ValueError(f"the reward head of {file} has {num_outputs} outputs instead of {OUTPUTS}")
    head = reward_head([width, *(len(matrix) for matrix in matrices)])
    loaded(lambda: head.load_state_dict(own), file, "HPSv3 checkpoint")
    return head
