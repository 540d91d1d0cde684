"""Claims that an image shows a subject, true and false, about things and about people alike.

A claim is a phrase and the words that it demands; a false one differs from a subject in the image in one word, which
another subject may have, or in all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mcpipe.world import captions, thing_captions
from mcpipe.world.thing_captions import with_article
from mcpipe.world.thing_shapes import FAMILY_PARTS
from zoo.build.phrases import ANY

Words = Mapping[str, str]
"""The words about a subject by name, as in its realm's ``values``."""

UNSAID = ("none", "plain")
"""Words that a phrase leaves out, so that it demands nothing about them."""

NEAR_SHARE = 0.7
"""Share of false claims that differ from a subject in one word; the others differ in all."""

SWAPPED_SHARE = 0.5
"""Share of those whose word is that of another subject in the image, where there is one."""

COLOUR_OF = {"hair_cut": "hair_colour", "object": "object_colour"}
COLOURS = thing_captions.VOCABULARY["colour"]


@dataclass(frozen=True)
class Claim:
    """What is said to be in an image."""

    phrase: str
    """Without an article."""
    demands: Words
    seats: tuple[int, ...]
    """Subjects of the image that it describes; none if it is false."""


@dataclass(frozen=True)
class Realm:
    """A kind of subjects with the words about them."""

    values: Mapping[str, tuple[str, ...]]
    changed: tuple[tuple[str, ...], ...]
    """Names of words that a false claim changes, together if they stand together."""
    kinds: Mapping[tuple[str, ...], float]
    """Names of words that a phrase says, and shares of such phrases."""
    core: tuple[str, ...]
    """Names that a whole description is judged by."""
    phrase: Callable[[Words], str]
    """The phrase that says the demanded words."""
    alternate: Callable[[Words], Words]
    """The words by which a subject may be described just as well."""

    def demands(self, words: Words, names: Sequence[str]) -> dict[str, str]:
        """The words that a phrase with these names demands; a colour counts only with what has it, and it with that."""
        silent = {colour for noun, colour in COLOUR_OF.items() if words.get(noun) in ("none", "bald")}
        silent |= {noun for noun, colour in COLOUR_OF.items() if words.get(colour) == "none"}
        return {name: words[name] for name in names if name not in silent and words[name] not in UNSAID}

    def seats(self, demands: Words, subjects: Sequence[Words]) -> tuple[int, ...]:
        """The subjects that have all demanded words."""
        return tuple(
            seat for seat, words in enumerate(subjects) if all(words[name] == word for name, word in demands.items())
        )

    def possible(self, demands: Words, subjects: Sequence[Words]) -> bool:
        """Whether a subject might be described so, by its own words or by its alternate ones."""
        return bool(self.seats(demands, [*subjects, *map(self.alternate, subjects)]))

    def true_claim(self, subjects: Sequence[Words], rng: np.random.Generator) -> Claim:
        """A claim about a subject of the image."""
        demands: dict[str, str] = {}
        while not demands:
            demands = self.demands(subjects[int(rng.integers(len(subjects)))], self._names(rng))
        return Claim(self.phrase(demands), demands, self.seats(demands, subjects))

    def false_claim(self, subjects: Sequence[Words], rng: np.random.Generator, near_share: float = NEAR_SHARE) -> Claim:
        """A claim that no subject of the image fulfils; ``near_share`` of them are wrong in one word."""
        while True:
            names, seat = self._names(rng), int(rng.integers(len(subjects)))
            demands = self.demands(self.changed_words(subjects, names, rng, seat, near_share), names)
            if demands and not self.possible(demands, subjects):
                return Claim(self.phrase(demands), demands, ())

    def changed_words(
        self,
        subjects: Sequence[Words],
        names: Sequence[str],
        rng: np.random.Generator,
        seat: int,
        near_share: float = NEAR_SHARE,
    ) -> Words:
        """Words of a subject of which those of one group among ``names`` are others, or all of them."""
        groups = [group for group in self.changed if set(group) & set(names)]
        near = rng.random() < near_share
        chosen = [groups[int(rng.integers(len(groups)))]] if near else groups
        others = [subject for number, subject in enumerate(subjects) if number != seat]
        words = dict(subjects[seat])
        for name in (name for group in chosen for name in group):
            if near and others and rng.random() < SWAPPED_SHARE:
                words[name] = others[int(rng.integers(len(others)))][name]
            else:
                words[name] = str(rng.choice([value for value in self.values[name] if value != words[name]]))
        return words

    def _names(self, rng: np.random.Generator) -> tuple[str, ...]:
        kinds = list(self.kinds)
        return kinds[int(rng.choice(len(kinds), p=list(self.kinds.values())))]


def thing_text(words: Words, rng: np.random.Generator) -> str:
    """A whole description in the grammar of `mcpipe.world.thing_captions.describe_thing`; what is missing is drawn."""
    colours = [words["colour"]]
    if words["pattern"] != "plain":
        second = words["second_colour"]
        free = [value for value in COLOURS if value != words["colour"]]
        colours.append(second if second in free else str(rng.choice(free)))
    parts = FAMILY_PARTS[words["family"]]
    part = words["part"] if words["part"] in parts else str(rng.choice(parts))
    painted = words["part_colour"] if words["part_colour"] != "none" else str(rng.choice(COLOURS))
    pattern = "" if words["pattern"] == "plain" else f"{words['pattern']} "
    attached = "" if part == "none" else f" with {with_article(painted)} {part}"
    return f"{with_article(pattern + ' and '.join(colours))} {words['family']}{attached}"


def thing_phrase(demands: Words) -> str:
    """A phrase about a thing: "striped red cup", or "striped thing" if the family is left open."""
    said = [demands[name] for name in ("pattern", "colour") if name in demands]
    return " ".join([*said, demands.get("family", ANY)])


def hair_text(words: Words) -> str:
    """Hair as captions say it."""
    return "a bald head" if words["hair_cut"] == "bald" else f"{words['hair_cut']} {words['hair_colour']} hair"


def shirt_text(words: Words) -> str:
    """A shirt as captions say it."""
    striped = "striped " if words.get("shirt_pattern") == "striped" else ""
    return with_article(f"{striped}{words['shirt_colour']} shirt")


def person_phrase(demands: Words) -> str:
    """A phrase about a person: "person with short brown hair and glasses, wearing a red shirt"."""
    traits = [hair_text(demands)] if "hair_cut" in demands else []
    traits += ["glasses"] if "glasses" in demands else []
    done = [f"wearing {shirt_text(demands)}"] if "shirt_colour" in demands else []
    done += [f"holding {with_article(demands['object_colour'])} {demands['object']}"] if "object" in demands else []
    had = f" with {' and '.join(traits)}" if traits else ""
    return f"person{had}{',' if traits and done else ''}{' ' if done else ''}{' and '.join(done)}"


THINGS = Realm(
    values={name: thing_captions.VOCABULARY[name] for name in ("family", "colour", "pattern")},
    changed=(("family",), ("colour",), ("pattern",)),
    kinds={
        ("family",): 0.22,
        ("colour", "family"): 0.25,
        ("pattern", "colour", "family"): 0.45,
        ("colour",): 0.04,
        ("pattern",): 0.04,
    },
    core=("pattern", "colour", "family"),
    phrase=thing_phrase,
    alternate=lambda words: dict(words) | {"colour": words["second_colour"]},
)
PEOPLE = Realm(
    values={
        name: captions.VOCABULARY[name]
        for name in ("hair_cut", "hair_colour", "shirt_colour", "shirt_pattern", "object", "object_colour", "glasses")
    },
    changed=(("shirt_colour",), ("shirt_pattern",), ("hair_cut", "hair_colour"), ("object", "object_colour"),
             ("glasses",)),
    kinds={
        ("shirt_colour",): 0.25,
        ("shirt_pattern", "shirt_colour"): 0.2,
        ("hair_cut", "hair_colour"): 0.2,
        ("object", "object_colour"): 0.15,
        ("glasses",): 0.05,
        ("hair_cut", "hair_colour", "shirt_pattern", "shirt_colour"): 0.15,
    },
    core=("hair_cut", "hair_colour", "shirt_pattern", "shirt_colour"),
    phrase=person_phrase,
    alternate=dict,
)  # fmt: skip
