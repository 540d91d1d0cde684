"""Scores of a captioner: well-formed answers, and correct attributes."""

import re
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from qwen_vl_utils import process_vision_info
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from mcpipe.curate.captions import mentioned_traits
from zoo.build.conversations import TASK_SHARES, Conversation, draw
from zoo.build.pictures import Pictures

ATTRIBUTES = {
    "skin": r"with (\w+) skin",
    "hair": r"(a bald head|\w+ \w+ hair)",
    "glasses": r"(glasses)",
    "facial_hair": r"a (?:\w+ )?(beard|moustache)",
    "shirt": r"wearing an? (?:striped )?(\w+) shirt",
    "stripes": r"(striped)",
    "object": r"holding an? (\w+ \w+)",
}


LATER = "{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
"""Another question about the image of the first (`zoo.build.apart`), from behind the image on."""


def inputs_of(processor: Qwen2_5_VLProcessor, conversations: Sequence[Conversation], *, answered: bool) -> dict:
    """Token ids and patches of conversations, with all their answers or ready for the first."""
    texts, images = [], []
    for conversation in conversations:
        contents = [{"type": "image", "image": Image.fromarray(picture)} for picture in conversation.pictures]
        messages = [{"role": "user", "content": [*contents, {"type": "text", "text": conversation.instruction}]}]
        images += process_vision_info(messages)[0] or []
        if answered:
            messages.append({"role": "assistant", "content": conversation.answer})
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=not answered)
        later = conversation.questions[1:] if answered else ()
        texts.append(text + "".join(LATER.format(question=question.text, answer=question.answer) for question in later))
    return processor(text=texts, images=images or None, padding=True, return_tensors="pt")


@torch.no_grad()
def answers(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, conversations: Sequence[Conversation]
) -> list[str]:
    """Answers of the model, decoded greedily."""
    processor.tokenizer.padding_side = "left"
    inputs = inputs_of(processor, conversations, answered=False)
    processor.tokenizer.padding_side = "right"
    tokens = model.generate(**inputs, max_new_tokens=110, do_sample=False)
    return processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def measure(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, pictures: Pictures, total: int
) -> dict[str, float]:
    """Share of well-formed answers, and share of correct values by attribute."""
    rng = np.random.default_rng(0)
    rows = range(min(total, len(pictures.scenes)))
    said: dict[str, list[tuple[Conversation, str]]] = {}
    for task in TASK_SHARES:
        for start in range(0, len(rows), 8):
            conversations = [draw(pictures, task, row, rng) for row in rows[start : start + 8]]
            said.setdefault(task, []).extend(zip(conversations, answers(model, processor, conversations), strict=True))
    right = [answer == conversation.answer for conversation, answer in said["question"]]
    metrics = {"questions_right": float(np.mean(right))}
    for task in (task for task in TASK_SHARES if task != "question"):
        counts = [
            answer.count("a person") == conversation.answer.count("a person") for conversation, answer in said[task]
        ]
        metrics[f"{task}_count_right"] = float(np.mean(counts))
    metrics["setting_describes_people"] = float(
        np.mean([any(mentioned_traits(answer)) for _, answer in said["setting"]])
    )
    pairs = [(conversation.answer, answer) for conversation, answer in said["caption"]]
    lasting = [(conversation.answer, answer) for conversation, answer in said["prompt"]]
    return (
        metrics
        | attribute_accuracy(pairs)
        | {
            f"prompt_{name}": value
            for name, value in attribute_accuracy(lasting).items()
            if name in ("skin", "hair", "glasses", "facial_hair")
        }
    )


def attribute_accuracy(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Share of people with a correct attribute; ``pairs`` are (truth, answer), with people from left to right."""
    right: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    for truth, answer in pairs:
        expected, actual = truth.split("a person")[1:], answer.split("a person")[1:]
        actual += [""] * (len(expected) - len(actual))
        for true_person, person in zip(expected, actual[: len(expected)], strict=True):
            for name, pattern in ATTRIBUTES.items():
                right[name].append(re.findall(pattern, true_person) == re.findall(pattern, person))
    return {name: float(np.mean(values)) for name, values in right.items()}
