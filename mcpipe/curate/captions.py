"""Whether a sentence can serve as the caption of a picture with several people (paper, appendix C).

The instructions ask a vision-language model to call everyone "a person", exactly once each, so that a caption can be
checked by counting, whichever model wrote it.
"""

import re
import unicodedata

from pydantic import Field

from mcpipe.params import Params

CAPTION_INSTRUCTION = (
    "The first {num_subjects} pictures each show one person, the last picture shows all {num_subjects} of them "
    "together. Describe the last picture in one sentence: how many people there are and where they are, then every "
    "person exactly once, from left to right, beginning with 'a person'."
)
"""Asked of the captioner with the references and the target."""

PROMPT_INSTRUCTION = (
    "The {num_subjects} pictures each show one person. Invent a picture that shows all {num_subjects} of them "
    "together and describe it in one sentence: how many people there are and where they are, then every person "
    "exactly once, beginning with 'a person'."
)
"""Asked of the captioner with the references alone: a prompt for the benchmark or for the last training stage."""

REFUSALS = ("i cannot", "i can't", "i am unable", "i'm unable", "i'm sorry", "i am sorry", "as an ai")
UNWRITTEN = ("Cc", "Co", "Cn", "So")
"""Unicode categories that no caption needs: control characters, unassigned ones, symbols such as U+FFFD."""
SUBJECT = re.compile(r"\ba person\b", re.IGNORECASE)


class SentenceParams(Params):
    """What a sentence must be like, and how hard to try for it."""

    min_words: int = Field(ge=1)
    """Fewer words say too little."""
    max_words: int = Field(ge=1)
    """More words do not fit the generator's text encoder."""
    attempts: int = Field(ge=1)
    """Answers to ask for before giving up."""
    temperature: float = Field(ge=0)
    """Of the attempts after the first, which decodes greedily; 0 makes them all alike."""
    max_tokens: int = Field(ge=1)
    """Longest answer in the captioner's tokens."""
    seed: int
    """Of the sampled attempts."""


def caption_fault(caption: str, num_subjects: int, params: SentenceParams) -> str | None:
    """Why a sentence cannot caption ``num_subjects`` people, or ``None`` if it can."""
    lowered = caption.lower()
    num_words = len(caption.split())
    if any(unicodedata.category(letter) in UNWRITTEN for letter in caption):
        return "caption_garbled"
    if any(refusal in lowered for refusal in REFUSALS):
        return "caption_refusal"
    if num_words < params.min_words:
        return "caption_too_short"
    if num_words > params.max_words:
        return "caption_too_long"
    if len(SUBJECT.findall(caption)) != num_subjects:
        return "caption_wrong_count"
    return None
