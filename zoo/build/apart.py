"""Several questions about one image in one sequence, of which each sees the image and itself alone.

    system, image | question 1, answer 1 | question 2, answer 2 | ...

Every question stands at the positions it would have as the only one, so that the network computes for each exactly
what it would compute for a conversation of its own, while the image, most of the sequence, is looked at once.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

KNOWN = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
"""What positions follow from."""

PREFIX, PADDING = 0, -1
"""Block number of tokens outside of questions."""


def set_apart(model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, inputs: dict) -> dict:
    """The inputs, in which every row shows one image, with positions and a mask that keep the questions apart."""
    blocks = blocks_of(processor, inputs["input_ids"], inputs["attention_mask"])
    positions, _ = model.model.get_rope_index(**{name: inputs[name] for name in KNOWN})
    for row, block in enumerate(blocks):
        starts = [int((block == number).nonzero()[0, 0]) for number in range(1, int(block.max()) + 1)]
        for number, start in enumerate(starts, 1):
            positions[:, row, block == number] -= positions[:, row, [start]] - positions[:, row, [starts[0]]]
    return inputs | {"attention_mask": seen_by(blocks)[:, None], "position_ids": positions}


def blocks_of(
    processor: Qwen2_5_VLProcessor, ids: Int[Tensor, "batch length"], present: Int[Tensor, "batch length"]
) -> Int[Tensor, "batch length"]:
    """The number of the question, from 1, that each token belongs to; `PREFIX` or `PADDING` for the others.

    A question begins after the image or the question before; its answer ends its second message.
    """
    tokenizer = processor.tokenizer
    end_of_picture, end_of_message = tokenizer.convert_tokens_to_ids(["<|vision_end|>", "<|im_end|>"])
    (line_break,) = tokenizer("\n").input_ids
    blocks = torch.where(present == 1, PREFIX, PADDING)
    for tokens, block in zip(ids, blocks, strict=True):
        start = int((tokens == end_of_picture).nonzero()[0, 0]) + 1
        ends = (tokens == end_of_message).nonzero()[:, 0]
        for number, end in enumerate(ends[ends >= start][1::2].tolist(), 1):
            after = end + 1 + int(end + 1 < len(tokens) and tokens[end + 1] == line_break)
            block[start:after] = number
            start = after
    return blocks


def seen_by(blocks: Int[Tensor, "batch length"]) -> Bool[Tensor, "batch length length"]:
    """Which token (last axis) each token sees: earlier ones of the prefix and of its own block, and itself."""
    length = blocks.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool).tril()
    ours = (blocks[:, :, None] == blocks[:, None, :]) | (blocks[:, None, :] == PREFIX)
    return (earlier & ours & (blocks[:, None, :] != PADDING)) | torch.eye(length, dtype=torch.bool)
