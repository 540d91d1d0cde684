"""Whether a sentence can serve as the caption of a picture with several people (paper, appendix C).

The instructions ask a vision-language model to call everyone "a person", exactly once each, so that a caption can be
checked by counting, whichever model wrote it. Models do not always obey: "a young woman", "another man" introduce
somebody just as well, "the woman" speaks of her again. What a caption says of the number of people must agree.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from pydantic import Field

from mcpipe.core.params import Params

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

REFUSAL = re.compile(
    r"\b(?:i|we) (?:cannot|can't|can not|could not|couldn't|do not|don't|won't)\b"
    r"|\b(?:i am|i'm|we are|we're) (?:sorry|unable|not able|afraid|not sure)\b"
    r"|\bas an? (?:ai|artificial|language model|assistant)\b|^(?:sorry|unfortunately)\b|\bapologi[sz]e\b"
)
CHATTER = re.compile(
    r"^(?:sure|certainly|of course|okay|ok|absolutely|here is|here's|here are)\b"
    r"|\b(?:first|second|third|last|final|previous|provided|given|reference|input) "
    r"(?:\w+ )?(?:picture|image|photo|photograph)s?\b"
    r"|\b(?:picture|image|photo|photograph|person|subject) ?\d"
)
"""Talk to whoever asked, or about the pictures that were shown: nothing that a generator could draw."""
UNWRITTEN = ("Cc", "Co", "Cn", "So")
"""Unicode categories that no caption needs: control characters, unassigned ones, symbols such as U+FFFD."""
SUBJECT = re.compile(r"\ba person\b", re.IGNORECASE)
PEOPLE = "person|man|woman|boy|girl|child|kid|baby|toddler|teenager|adult|lady|gentleman|guy|individual|player|friend"
NO_ADJECTIVE = "a|an|the|and|of|in|on|at|by|to|with|for|from|near|beside|behind|is|are|who|that|wearing|holding"
INTRODUCTION = re.compile(
    rf"(?:\ba|\ban|\banother|\bthe other|(?<=\W)one) (?:(?!(?:{NO_ADJECTIVE})\b)[\w-]+,? ){{0,4}}?(?:{PEOPLE})\b(?!')"
)
"""Somebody is mentioned for the first time, with up to four words of description before the noun; "one person" at the
very beginning tells their number."""
ONE_AND_OTHER = re.compile(
    r"\b(?:one|another|the (?:other|first|second|third|fourth))(?: one)? "
    r"(?:is|has|wears|holds|stands|sits|with|in|wearing|holding|standing|sitting|on|to)\b"
)
"""Likewise where a noun went before: two women, one in red, the other in blue."""
NUMBERS = {
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "several": 0,
    "many": 0,
}
"""Words for how many people there are; 0 is a number that no caption should give."""
TOTAL = re.compile(
    rf"\b({'|'.join(NUMBERS)}|\d+) (?:[\w-]+ ){{0,2}}?"
    r"(?:people|persons|individuals|adults|children|friends|men|women|boys|girls|kids)\b"
)
LOOP_WORDS = 5
"""A run of so many words that comes more often than there are people, and at least three times, is a loop."""
CUT = "caption_cut"
"""Fault of a sentence with more tokens than the generator's text encoder reads."""


class SentenceParams(Params):
    """What a sentence must be like, and how hard to try for it."""

    min_words: int = Field(ge=1)
    """Fewer words say too little."""
    max_words: int = Field(ge=1)
    """More words ramble. Whatever it says, a sentence that the generator's text encoder would cut is refused."""
    attempts: int = Field(ge=1)
    """Answers to ask for before giving up."""
    temperature: float = Field(ge=0)
    """Temperature of the attempts after the first, which decodes greedily; 0 makes them all alike."""
    max_tokens: int = Field(ge=1)
    """Longest answer in the captioner's tokens."""
    seed: int
    """Seed of the sampled attempts."""


def caption_fault(caption: str, num_subjects: int, params: SentenceParams) -> str | None:
    """Why a sentence cannot caption ``num_subjects`` people, or ``None`` if it can."""
    plain = " ".join(caption.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())
    num_words = len(plain.split())
    faults = (
        (any(unicodedata.category(letter) in UNWRITTEN for letter in caption), "caption_garbled"),
        (REFUSAL.search(plain) is not None, "caption_refusal"),
        (CHATTER.search(plain) is not None, "caption_chatter"),
        (num_words < params.min_words, "caption_too_short"),
        (num_words > params.max_words, "caption_too_long"),
        (_loops(plain, num_subjects), "caption_loops"),
        (num_described(plain) != num_subjects, "caption_wrong_count"),
        (any(total != num_subjects for total in _totals(plain)), "caption_wrong_count"),
    )
    return next((name for fault, name in faults if fault), None)


def sentence_fault(caption: str, num_subjects: int, params: SentenceParams, lost: Callable[[str], str]) -> str | None:
    """Why a sentence cannot caption ``num_subjects`` people of a picture to draw, or ``None`` if it can.

    ``lost`` gives the end of a text that the generator's text encoder does not see.
    """
    return caption_fault(caption, num_subjects, params) or (CUT if lost(caption) else None)


def fault_detail(caption: str, fault: str | None, lost: Callable[[str], str]) -> str:
    """What a rejection says of a sentence: all of it and, if it is too long, the part that would be lost."""
    return f"the text encoder does not see {lost(caption)!r} of {caption!r}" if fault == CUT else caption


def num_described(plain: str) -> int:
    """How many people a caption in lower case describes one by one."""
    introduced = len(INTRODUCTION.findall(plain))
    return introduced if introduced else len(ONE_AND_OTHER.findall(plain))


def _totals(plain: str) -> list[int]:
    """Every number of people that a caption gives."""
    return [NUMBERS[word] if word in NUMBERS else int(word) for word in TOTAL.findall(plain)]


def _loops(plain: str, num_subjects: int) -> bool:
    words = re.findall(r"\w+", plain)
    runs = Counter(zip(*(words[i:] for i in range(LOOP_WORDS)), strict=False))
    return max(runs.values(), default=0) > max(num_subjects, 2)
