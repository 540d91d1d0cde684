"""Texts that are longer than what an encoder reads.

CLIP reads 77 tokens. What is longer reaches it in windows (`windows`), whose embeddings are averaged. T5, whose tokens
the generator attends to one by one, cuts, and a warning names the words that are lost.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from math import ceil
from typing import Any, Protocol

from mcpipe.core.records import JSON

logger = logging.getLogger(__name__)

QUOTED_LETTERS = 120
"""Letters of a text that a message quotes."""
CUT_FACT = "texts_cut"
"""How a stage's report names the number of texts that each encoder cut."""

SEAMS = (r"(?<=[.;!?])\s+", r"(?<=[.,:;!?])\s+", r"\s+")
"""Where a text is divided into windows: between sentences; if these are too long, between clauses; else, words."""
SPECIAL = 2
"""Tokens that mark the beginning and the end of a text for CLIP."""

CutTexts = dict[str, set[str]]
"""Texts that were cut, by the encoder that cut them."""
_cut_texts: ContextVar[CutTexts | None] = ContextVar("cut_texts", default=None)


class Tokenizer(Protocol):
    """What transformers' tokenizers have in common."""

    def __call__(self, text: str, *, truncation: bool, verbose: bool) -> Any:  # noqa: ANN401  a batch encoding
        """Token ids of a text, special ones included, under ``input_ids``."""
        ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> Any:  # noqa: ANN401  a text
        """The text of token ids."""
        ...


def lost_text(tokenizer: Tokenizer, text: str, max_tokens: int) -> str:
    """The end of a text that an encoder of ``max_tokens`` tokens does not see; empty if it sees all of it."""
    ids = tokenizer(text, truncation=False, verbose=False).input_ids
    if len(ids) <= max_tokens:
        return ""
    # The token that ends a text keeps its place when the text is cut.
    return str(tokenizer.decode(ids[max_tokens - 1 :], skip_special_tokens=True)).strip()


def windows(text: str, num_tokens: Callable[[str], int], max_tokens: int) -> list[str]:
    """Consecutive parts of a text, about equally long, of at most ``max_tokens`` tokens as ``num_tokens`` counts them.

    A text that fits is its own and only window. The seams lie between sentences, clauses or words, in this order of
    preference; equal lengths keep a remainder of a few words from counting as much as the rest. A single word of more
    tokens is a window that is too long.
    """
    total = num_tokens(text)
    if total <= max_tokens:
        return [text]
    least, words = ceil(total / max_tokens), text.split()
    for seam in SEAMS:
        pieces = re.split(seam, text.strip())
        lengths = [num_tokens(piece) for piece in pieces]
        for number in range(least, min(least + 1, len(pieces)) + 1):
            parts = _divided(pieces, lengths, number)
            if all(num_tokens(part) <= max_tokens for part in parts):
                return parts
    return words


def clip_windows(tokenizer: Tokenizer, text: str, max_tokens: int) -> list[str]:
    """The windows in which a CLIP encoder of ``max_tokens`` tokens, special ones included, reads a text."""

    def num_tokens(part: str) -> int:
        return len(tokenizer(part, truncation=False, verbose=False).input_ids) - SPECIAL

    return windows(text, num_tokens, max_tokens - SPECIAL)


def _divided(pieces: Sequence[str], lengths: Sequence[int], number: int) -> list[str]:
    """Pieces of a text joined to at most ``number`` parts of about equal length."""
    parts: list[list[str]] = [[] for _ in range(number)]
    before, total = 0, sum(lengths)
    for piece, length in zip(pieces, lengths, strict=True):
        parts[int((before + length / 2) * number / total)].append(piece)
        before += length
    return [" ".join(part) for part in parts if part]


def warn_if_cut(encoder: str, tokenizer: Tokenizer, text: str, max_tokens: int) -> None:
    """Report the end of a text that an encoder does not see, if there is one (see `report_cut`)."""
    if lost := lost_text(tokenizer, text, max_tokens):
        report_cut(encoder, max_tokens, text, lost)


def report_cut(encoder: str, max_tokens: int, text: str, lost: str) -> None:
    """Log a warning, once per text, that names its end ``lost``, and count it where cuts are recorded."""
    cut = _cut_texts.get()
    if cut is not None:
        cut.setdefault(encoder, set()).add(text)
    _warn(encoder, max_tokens, text[:QUOTED_LETTERS], lost)


@contextmanager
def recorded_cuts() -> Iterator[CutTexts]:
    """Within this context, texts that an encoder of this process cuts are collected by encoder."""
    cut: CutTexts = {}
    token = _cut_texts.set(cut)
    try:
        yield cut
    finally:
        _cut_texts.reset(token)


def cut_facts(cut: Mapping[str, set[str]]) -> dict[str, JSON]:
    """How many texts each encoder cut, as a fact of a report; empty if none did."""
    return {CUT_FACT: {encoder: len(cut[encoder]) for encoder in sorted(cut)}} if cut else {}


@cache
def _warn(encoder: str, max_tokens: int, text: str, lost: str) -> None:
    logger.warning(
        "%s reads %d tokens; of the text that begins %r it does not see: %r", encoder, max_tokens, text, lost
    )
