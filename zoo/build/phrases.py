"""Phrases about things and what they mean: which things of a scene a phrase describes, all, one or none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mcpipe.world.thing_captions import VOCABULARY, with_article

ANY = "thing"
"""The noun that leaves the family open."""

Words = Mapping[str, str]
"""The words about a thing (`mcpipe.world.thing_captions.thing_words`)."""

KINDS: dict[str, tuple[tuple[str, ...], float]] = {
    "name": (("family",), 0.3),
    "colour": (("colour", "family"), 0.25),
    "pattern": (("pattern", "colour", "family"), 0.25),
    "part": (("pattern", "colour", "family", "part_colour", "part"), 0.1),
    "any": (("colour",), 0.05),
    "any_pattern": (("pattern",), 0.05),
}
"""The words of each kind of phrase, and its share in training; the last two often describe several things."""

ABSENT_SHARE = 0.15
"""Share of training phrases that describe nothing in the picture."""

NEAR_SHARE = 0.6
"""Share of those that differ from a thing in the picture in one word."""

ARTICLE_SHARE = 0.3
"""Share of phrases that begin with an article."""


@dataclass(frozen=True)
class Phrase:
    """A phrase with the words that it demands."""

    text: str
    demands: Words

    def matches(self, things: Sequence[Words]) -> list[int]:
        """The seats of all things that it describes."""
        return [seat for seat, words in enumerate(things) if all(words[k] == v for k, v in self.demands.items())]

    def may_match(self, things: Sequence[Words]) -> bool:
        """Whether it describes a thing if the second colour of a pattern counts as well as the first."""
        turned = [dict(words) | {"colour": words["second_colour"]} for words in things]
        return bool(self.matches(things) or self.matches(turned))


def phrase_of(words: Words, kind: str) -> Phrase:
    """A phrase of a kind about a thing: "striped red cup with a blue handle", "red thing"."""
    demands = {name: words[name] for name in KINDS[kind][0] if words[name] not in ("none", "plain")}
    before = [demands[name] for name in ("pattern", "colour") if name in demands]
    part = f" with {with_article(demands['part_colour'])} {demands['part']}" if "part" in demands else ""
    return Phrase(f"{' '.join([*before, demands.get('family', ANY)])}{part}", demands)


def sample_phrase(things: Sequence[Words], rng: np.random.Generator) -> Phrase:
    """A phrase about one of the things in a picture or, at times, about none of them."""
    words = things[int(rng.integers(len(things)))]
    shares = [share for _, share in KINDS.values()]
    kind = str(rng.choice(list(KINDS), p=shares))
    phrase = absent_phrase(things, words, kind, rng) if rng.random() < ABSENT_SHARE else phrase_of(words, kind)
    if rng.random() < ARTICLE_SHARE:
        return Phrase(with_article(phrase.text), phrase.demands)
    return phrase


def absent_phrase(things: Sequence[Words], words: Words, kind: str, rng: np.random.Generator) -> Phrase:
    """A phrase that describes none of the things: about one that differs from ``words`` in one word or in all."""
    while True:
        other = dict(words)
        near = rng.random() < NEAR_SHARE
        names = [str(rng.choice(["family", "colour", "pattern"]))] if near else ["family", "colour", "pattern"]
        for name in names:
            other[name] = str(rng.choice(VOCABULARY[name]))
        kind = "colour" if kind.startswith("any") else kind
        phrase = phrase_of(other, kind)
        if not phrase.may_match(things):
            return phrase
        kind = str(rng.choice(["name", "colour", "pattern"]))
