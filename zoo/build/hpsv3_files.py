"""HPSv3 of the tiny zoo: its network, its processor, and its folder in the layout of the published one."""

from pathlib import Path

import torch
from pydantic import Field
from safetensors.torch import save_file
from tokenizers import AddedToken
from torch import nn
from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from mcpipe.core.params import Params
from mcpipe.models.scorers.hpsv3 import HEAD
from mcpipe.models.scorers.hpsv3_prompt import REWARD_TOKEN, TEMPLATE
from zoo.build.pictures import Pictures
from zoo.build.tokenizers import CHAT_TEMPLATE, QWEN_SPECIAL, qwen_tokenizer
from zoo.build.training import FitParams

FILE = "HPSv3_puppet.safetensors"
LONGEST_TEXT = 1024
MERGE = 2
"""Patches of a token of an image, in each direction."""
ROPE_BASE = 1000.0


class Hpsv3Params(Params):
    """Size and training."""

    fit: FitParams
    size: int = Field(gt=0)
    """Pixels of an image's side."""
    patch: int = Field(gt=0)
    """Pixels of a patch's side."""
    vision_width: int
    """Width of the image's encoder."""
    vision_layers: int = Field(ge=1)
    """Layers of the image's encoder."""
    width: int
    """Width of the language model."""
    layers: int = Field(ge=1)
    """Layers of the language model."""
    head: list[int] = Field(min_length=2, max_length=2)
    """Hidden widths of the reward head."""
    pretraining_steps: int = Field(ge=0)
    """First steps, in which twice as many images and sentences get to know each other, without comparisons."""
    vocabulary: int = Field(ge=300)
    """Byte-pair tokens beside the special ones."""


def make_processor(pictures: Pictures, params: Hpsv3Params) -> Qwen2VLProcessor:
    """A tokenizer learnt from the sentences, which has one token for each part of HPSv3's text that never changes."""
    tokenizer = qwen_tokenizer(
        [*pictures.all_texts(), "system\nYou are a helpful assistant.", "user\n", "assistant\n"],
        params.vocabulary,
        LONGEST_TEXT,
    )
    before, after = TEMPLATE.split("{text_prompt}")
    fixed = [before, *after.split(REWARD_TOKEN)]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in fixed])
    tokenizer.add_tokens([AddedToken(REWARD_TOKEN, normalized=False, special=True)], special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    area = params.size**2
    images = {
        "size": {"shortest_edge": area, "longest_edge": area},
        "patch_size": params.patch,
        "merge_size": MERGE,
        "temporal_patch_size": 1,
    }
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**images),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**images),
        chat_template=CHAT_TEMPLATE,
    )


def make_model(processor: Qwen2VLProcessor, params: Hpsv3Params) -> Qwen2VLForConditionalGeneration:
    """An untrained network of the genuine architecture."""
    tokenizer, heads = processor.tokenizer, 4
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in QWEN_SPECIAL}
    turning = params.width // heads // 2
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": params.width,
            "intermediate_size": 2 * params.width,
            "num_hidden_layers": params.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // 2,
            "max_position_embeddings": LONGEST_TEXT,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": ROPE_BASE,
                "mrope_section": [turning - 2 * (turning // 3), turning // 3, turning // 3],
            },
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": params.vision_layers,
            "embed_dim": params.vision_width,
            "hidden_size": params.width,
            "mlp_ratio": 2,
            "num_heads": heads,
            "patch_size": params.patch,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 1,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    model = Qwen2VLForConditionalGeneration(config)
    # The usual deviation of 0.02 is meant for thousands of dimensions.
    nn.init.normal_(model.get_input_embeddings().weight, std=params.width**-0.5)
    return model


def write_model(
    folder: Path, model: Qwen2VLForConditionalGeneration, head: nn.Sequential, processor: Qwen2VLProcessor
) -> None:
    """Weights in float16 under the names of the published file; configuration and processor beside them."""
    weights = {published_name(name): weight for name, weight in model.model.state_dict().items()}
    weights |= {HEAD + name: weight for name, weight in head.state_dict().items()}
    save_file({name: weight.half().contiguous() for name, weight in weights.items()}, folder / FILE)
    model.config.dtype = torch.float16
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)


def published_name(name: str) -> str:
    """The name of one of the network's weights in a file of transformers 4.45, HPSv3's own."""
    return name if name.startswith("visual.") else name.replace("language_model.", "model.", 1)
