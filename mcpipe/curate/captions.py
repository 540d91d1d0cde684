"""Whether a sentence can serve as the caption of an image with several people (paper, appendix C).

The instructions ask a vision-language model to call everyone "a person", exactly once each, so that a caption can be
checked by counting, whichever model wrote it. Models do not always obey: "a young woman", "another man" introduce
somebody just as well, "the woman" speaks of her again. What a caption says of the number of people must agree.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from mcpipe.core.params import Params, TakenFrom

Describe = Literal["scene", "people"]
"""What a sentence says of people: their clothes and actions, or their faces and hair as well."""

CAPTION_INSTRUCTIONS: dict[Describe, str] = {
    "people": (
        "The first {num_subjects} pictures each show one person, the last picture shows all {num_subjects} of them "
        "together. Describe the last picture in one sentence: how many people there are and where they are, then every "
        "person exactly once, from left to right, beginning with 'a person'."
    ),
    "scene": (
        "The first {num_subjects} pictures each show one person, the last picture shows all {num_subjects} of them "
        "together. Describe the last picture in one sentence: how many people there are and where they are, then what "
        "each person wears and does, exactly once, from left to right, beginning with 'a person'. Say nothing about "
        "faces, hair or skin."
    ),
}
"""Instruction that the captioner receives with the references and the target."""

PROMPT_INSTRUCTIONS: dict[Describe, str] = {
    "people": (
        "The {num_subjects} pictures each show one person. Invent a picture that shows all {num_subjects} of them "
        "together and describe it in one sentence: how many people there are and where they are, then every person "
        "exactly once, beginning with 'a person'."
    ),
    "scene": (
        "The {num_subjects} pictures each show one person. Invent a picture that shows all {num_subjects} of them "
        "together and describe it in one sentence: how many people there are and where they are, then what each "
        "person wears and does, exactly once, beginning with 'a person'. Say nothing about faces, hair or skin."
    ),
}
"""Instruction that the captioner receives with the references alone, to write a prompt of the benchmark or of stage
3."""

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
"""Phrases addressed to the user, or about the input images; a generator cannot draw them."""
UNWRITTEN = ("Cc", "Co", "Cn", "So")
"""Unicode categories that a caption never needs: control characters, unassigned ones, symbols such as U+FFFD."""
SUBJECT = re.compile(r"\ba person\b", re.IGNORECASE)
TRAITS = {
    "skin": r"\b(?:\w+ )?skin(?:ned)?\b|\bcomplexion\b",
    "hair": r"\bhair(?:ed|cut)?\b|\bbald\b|\bblonde?\b|\bbrunette\b|\b(?:curls|ponytail|bob)\b",
    "facial_hair": r"\bbeard(?:ed)?\b|\bmoustache\b|\bmustache\b|\bstubble\b",
    "glasses": r"\bglasses\b|\bspectacles\b",
    "face": r"\b(?:eyes?|freckles?|freckled|nose|lips|jaw)\b",
}
"""Traits of an identity rather than of clothes, and their words in a sentence."""
ALLOWED_CUES = 1
"""Lasting traits that a sentence of the form "scene" may give of a person, at most."""
DescribeForm = Annotated[Describe, TakenFrom("captions.describe")]
"""Form of captions and prompts, one for the whole pipeline."""
PEOPLE = "person|man|woman|boy|girl|child|kid|baby|toddler|teenager|adult|lady|gentleman|guy|individual|player|friend"
NO_ADJECTIVE = "a|an|the|and|of|in|on|at|by|to|with|for|from|near|beside|behind|is|are|who|that|wearing|holding"
INTRODUCTION = re.compile(
    rf"(?:\ba|\ban|\banother|\bthe other|(?<=\W)one) (?:(?!(?:{NO_ADJECTIVE})\b)[\w-]+,? ){{0,4}}?(?:{PEOPLE})\b(?!')"
)
"""First mention of a person, with up to four words of description before the noun; "one person" at the very beginning
is a count."""
ONE_AND_OTHER = re.compile(
    r"\b(?:one|another|the (?:other|first|second|third|fourth))(?: one)? "
    r"(?:is|has|wears|holds|stands|sits|with|in|wearing|holding|standing|sitting|on|to)\b"
)
"""First mention after an earlier noun: two women, one in red, the other in blue."""
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
"""Words for numbers of people; 0 stands for numbers that a caption should not give."""
TOTAL = re.compile(
    rf"\b({'|'.join(NUMBERS)}|\d+) (?:[\w-]+ ){{0,2}}?"
    r"(?:people|persons|individuals|adults|children|friends|men|women|boys|girls|kids)\b"
)
LOOP_WORDS = 5
"""Length in words of a repeated run that counts as a loop, if it occurs more often than there are people and at least
three times."""
CUT = "caption_cut"
"""Name of the fault of a sentence with more tokens than the generator's text encoder reads."""


class SentenceParams(Params):
    """Requirements for a sentence, and the number of attempts to obtain it."""

    min_words: int = Field(ge=1)
    """Minimum number of words."""
    max_words: int = Field(ge=1)
    """Maximum number of words. A sentence that the generator's text encoder would cut is rejected in any case."""
    attempts: int = Field(ge=1)
    """Maximum number of answers requested from the captioner."""
    temperature: float = Field(ge=0)
    """Temperature of the attempts after the first, which decodes greedily; at 0 all attempts are equal."""
    max_tokens: int = Field(ge=1)
    """Longest answer in the captioner's tokens."""
    seed: int
    """Seed of the sampled attempts."""


def caption_fault(caption: str, num_subjects: int, params: SentenceParams) -> str | None:
    """Name of the fault of a caption of ``num_subjects`` people, or ``None`` if it has none."""
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


def sentence_fault(
    caption: str, num_subjects: int, params: SentenceParams, describe: Describe, lost: Callable[[str], str]
) -> str | None:
    """Name of the fault of a caption of ``num_subjects`` people in an image to draw, or ``None`` if it has none.

    ``lost`` returns the end of a text that the generator's text encoder does not read.
    """
    if fault := caption_fault(caption, num_subjects, params):
        return fault
    if describe == "scene" and describes_people(caption):
        return "caption_describes_people"
    return CUT if lost(caption) else None


def mentioned_traits(sentence: str) -> list[set[str]]:
    """For everybody whom a sentence calls "a person", in order, which of `TRAITS` it mentions.

    What stands before the first person is counted to a set of its own at the beginning, if it mentions anything.
    """
    before, *people = (
        {name for name, words in TRAITS.items() if re.search(words, part, re.IGNORECASE)}
        for part in SUBJECT.split(sentence)
    )
    return [before, *people] if before else people


def describes_people(sentence: str) -> bool:
    """Whether a sentence gives more than one lasting trait of a person, or traits without a person."""
    traits = mentioned_traits(sentence)
    unassigned = len(traits) > len(SUBJECT.findall(sentence))
    return unassigned or any(len(of_one) > ALLOWED_CUES for of_one in traits)


def fault_detail(caption: str, fault: str | None, lost: Callable[[str], str]) -> str:
    """Detail of a rejection: the whole sentence and, if it is too long, the part that would be lost."""
    return f"the text encoder does not see {lost(caption)!r} of {caption!r}" if fault == CUT else caption


def num_described(plain: str) -> int:
    """Number of people that a caption in lower case describes individually."""
    introduced = len(INTRODUCTION.findall(plain))
    return introduced if introduced else len(ONE_AND_OTHER.findall(plain))


def _totals(plain: str) -> list[int]:
    """All numbers of people that a caption states."""
    return [NUMBERS[word] if word in NUMBERS else int(word) for word in TOTAL.findall(plain)]


def _loops(plain: str, num_subjects: int) -> bool:
    words = re.findall(r"\w+", plain)
    runs = Counter(zip(*(words[i:] for i in range(LOOP_WORDS)), strict=False))
    return max(runs.values(), default=0) > max(num_subjects, 2)
