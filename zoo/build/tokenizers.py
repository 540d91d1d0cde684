"""Tokenizers of the text models, in the genuine classes, with vocabularies learnt from the world's own sentences."""

import json
import math
from collections import Counter
from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer, Qwen2Tokenizer, T5TokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

QWEN_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Qwen2.5-VL's own special tokens, in its order."""

CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2-VL's and Qwen2.5-VL's own chat template, without tool calls."""

WORD_START = "\u2581"
"""Prefix of each word in a unigram tokenizer."""

PUNCTUATION = ",;:."
LETTER_SCORE = -20.0
"""Log-probability of a single letter: below that of any word."""

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,.;:'?!-"


def clip_tokenizer(texts: Sequence[str], vocabulary: int, longest: int) -> CLIPTokenizer:
    """CLIP's byte-level BPE with about ``vocabulary`` tokens; ``longest`` includes the two end tokens."""
    genuine = CLIPTokenizer()._tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = genuine.normalizer, genuine.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, end_of_word_suffix="</w>"),
    )
    learnt, merges = _bpe(learner)
    extra = [letter + end for letter in alphabet for end in ("", "</w>")] + ["<|startoftext|>", "<|endoftext|>"]
    for token in extra:
        learnt.setdefault(token, len(learnt))
    return CLIPTokenizer(vocab=learnt, merges=merges, model_max_length=longest)


def t5_tokenizer(texts: Sequence[str], longest: int) -> T5TokenizerFast:
    """T5's unigram pieces: every word of the texts whole, letters for the rest; ``longest`` includes the end token.

    A trained vocabulary of this size would cut the words up, and two people would not fit in 64 tokens.
    """
    words = Counter(word for text in texts for word in text.split())
    bare = Counter({word.rstrip(PUNCTUATION): 1 for word in words})
    counts = words + bare
    total = sum(counts.values())
    whole = [(WORD_START + word, math.log(count / total)) for word, count in sorted(counts.items())]
    taken = {piece for piece, _ in whole}
    letters = [(letter, LETTER_SCORE) for letter in [WORD_START, *LETTERS] if letter not in taken]
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return T5TokenizerFast(
        vocab=[*specials, *whole, *letters], extra_ids=0, additional_special_tokens=None, model_max_length=longest
    )


def qwen_tokenizer(texts: Sequence[str], vocabulary: int, longest: int) -> Qwen2Tokenizer:
    """Qwen2's byte-level BPE with about ``vocabulary`` tokens and Qwen2.5-VL's special ones."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet))
    learnt, merges = _bpe(learner)
    return Qwen2Tokenizer(
        vocab=learnt,
        merges=merges,
        unk_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(QWEN_SPECIAL),
        model_max_length=longest,
    )


def _bpe(learner: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(learner.to_str())["model"]
    # Some versions write a merge as one string.
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return dict(model["vocab"]), [(str(left), str(right)) for left, right in pairs]
