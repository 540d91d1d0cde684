"""Texts that are longer than what an encoder reads."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Protocol

from mcpipe.core.records import JSON

logger = logging.getLogger(__name__)

QUOTED_LETTERS = 120
"""Letters of a text that a message quotes."""
CUT_FACT = "texts_cut"
"""How a stage's report names the number of texts that each encoder cut."""

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
