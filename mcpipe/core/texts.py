"""Texts that are longer than what an encoder reads."""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

logger = logging.getLogger(__name__)

SHOWN_LETTERS = 120
"""Letters of a text that a message quotes."""


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
    """Log a warning, once per text, that names the end of a text that an encoder does not see."""
    if lost := lost_text(tokenizer, text, max_tokens):
        _warn(encoder, max_tokens, text[:SHOWN_LETTERS], lost)


@cache
def _warn(encoder: str, max_tokens: int, text: str, lost: str) -> None:
    logger.warning(
        "%s reads %d tokens; of the text that begins %r it does not see: %r", encoder, max_tokens, text, lost
    )
