"""Mentions of attributes by person in captions, and their agreement with the truth: F1 over mentions.

A mention is a person, counted from left to right, and a word for one attribute: "the second person's hair is red". It
is right when the truth mentions the same. What somebody lacks (glasses, a thing in the hand, the hair of a bald head)
is no mention.
"""

import re
from collections.abc import Sequence

from mcpipe.curate.captions import SUBJECT

ATTRIBUTES = {
    "hair_colour": r"with .*?\w+ (\w+) hair\b|\ba (\w+) (?:beard|moustache)\b",
    "hair_cut": r"\b(bald) head\b|(\w+) \w+ hair\b",
    "skin": r"\b(\w+) skin\b",
    "facial_hair": r"\b(beard|moustache)\b",
    "glasses": r"\b(glasses)\b",
    "shirt_colour": r"\bwearing an? (?:striped )?(\w+) shirt\b",
    "object": r"\bholding an? \w+ (\w+)",
}
"""Scored attributes and their patterns in sentences of the world's grammar."""

EXTRA = {
    "shirt_pattern": r"\b(striped) \w+ shirt\b",
    "object_colour": r"\bholding an? (\w+) \w+",
}
"""Attributes that captions mention, too, but that are not part of the score."""

Mention = tuple[int, str]
"""Index of the person, and the word."""


def mentions(caption: str) -> dict[str, set[Mention]]:
    """Mentions in a caption, by attribute."""
    by_attribute: dict[str, set[Mention]] = {name: set() for name in (*ATTRIBUTES, *EXTRA)}
    for place, person in enumerate(SUBJECT.split(caption)[1:]):
        for name, pattern in (ATTRIBUTES | EXTRA).items():
            match = re.search(pattern, person, re.IGNORECASE)
            if match:
                by_attribute[name].add((place, next(word for word in match.groups() if word).lower()))
    return by_attribute


def f1_scores(pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[float, int]]:
    """By attribute, and over all of `ATTRIBUTES` as "all": F1 and the number of true mentions.

    ``pairs`` are true and predicted captions.
    """
    counts = {name: [0, 0, 0] for name in (*ATTRIBUTES, *EXTRA)}
    for truth, caption in pairs:
        expected, actual = mentions(truth), mentions(caption)
        for name, count in counts.items():
            count[0] += len(expected[name] & actual[name])
            count[1] += len(expected[name])
            count[2] += len(actual[name])
    counts["all"] = [sum(counts[name][kind] for name in ATTRIBUTES) for kind in range(3)]
    return {name: (2 * right / max(true + said, 1), true) for name, (right, true, said) in counts.items()}
