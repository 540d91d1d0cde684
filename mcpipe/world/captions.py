"""True captions of the world, in one grammar and two forms.

`describe_scene` gives the form "people", which describes identities:

    two people in a park: on the left a person with tan skin, short brown hair and glasses, wearing a red shirt and
    holding a blue ball; on the right a person with pale skin and a bald head, wearing a striped green shirt

`describe_setting` gives the form "scene", which leaves that to the references: place, clothes and actions, with at
most one cue to each person:

    two people in a park: a person wearing a striped green shirt; a person with glasses, wearing a red shirt and
    holding a blue ball

Every person is mentioned once, always with the words "a person"; in the first form from left to right. Of four people
no sides are given: the text encoder of the tiny generator reads 64 tokens.
"""

from collections.abc import Sequence

import numpy as np

from mcpipe.world.discovery import Part
from mcpipe.world.discovery import attributes as known_attributes
from mcpipe.world.scene import PLACES, Scene
from mcpipe.world.traits import Identity, Outfit

COUNTS = {1: "one person", 2: "two people", 3: "three people", 4: "four people"}
SIDES = {
    1: ("in the middle",),
    2: ("on the left", "on the right"),
    3: ("on the left", "in the middle", "on the right"),
    4: ("", "", "", ""),
}
"""Side of each person from left to right, by the number of people; empty where a caption gives none."""

CUE_SHARE = 0.5
"""Share of people of whom a caption of the scene says one of their lasting traits."""

SIDES_SHARE = 0.5
"""Share of captions of the scene that say on which side each person is."""

VOCABULARY: dict[str, tuple[str, ...]] = {
    name: values for attribute in known_attributes() for name, values in attribute.vocabulary.items()
}
"""Every value each word about a person can take (`attributes`)."""

LASTING = tuple(
    name for attribute in known_attributes() if attribute.owner is Identity for name in attribute.vocabulary
)
"""The words of `VOCABULARY` that belong to an identity rather than to clothes."""

_SAID = tuple(attribute for attribute in known_attributes() if attribute.part == "trait" and attribute.vocabulary)
PHRASES = tuple(f"{next(iter(attribute.vocabulary))}_phrase" for attribute in _SAID)
"""Columns of the face pool's table that hold the phrase about one lasting trait each."""


def attributes(identity: Identity, outfit: Outfit) -> dict[str, str]:
    """The words of a caption about a person, one per entry of `VOCABULARY`."""
    owners = {Identity: identity, Outfit: outfit}
    return {
        name: word
        for attribute in known_attributes()
        for name, word in attribute.words(owners[attribute.owner]).items()
    }


def trait_phrases(identity: Identity) -> dict[str, str]:
    """The phrase about each lasting trait by column of `PHRASES`, empty where there is nothing to say."""
    return {name: attribute.phrase(identity) or "" for name, attribute in zip(PHRASES, _SAID, strict=True)}


def describe_face(identity: Identity) -> str:
    """The lasting traits alone: "a person with tan skin, short brown hair and glasses"."""
    return f"a person with {_listed(_said('trait', identity))}"


def describe_person(identity: Identity, outfit: Outfit) -> str:
    """One person with clothes: "a person with ..., wearing a striped red shirt and holding a blue ball"."""
    return f"{describe_face(identity)}, {describe_outfit(outfit)}"


def describe_outfit(outfit: Outfit) -> str:
    """Clothes and the held object alone: "wearing a striped red shirt and holding a blue ball"."""
    shirt = " ".join(reversed(_said("shirt", outfit)))
    worn = _listed([_with_article(noun) for noun in (shirt, *_said("garment", outfit))])
    held = [_with_article(noun) for noun in _said("object", outfit)]
    return f"wearing {worn}{f' and holding {_listed(held)}' if held else ''}"


def describe_scene(scene: Scene) -> str:
    """The whole image: count, place, and every person from left to right."""
    people = [describe_person(person.identity, person.outfit) for person in scene.people]
    if not people:
        return f"nobody {PLACES[scene.background.place]}"
    described = "; ".join(f"{side} {person}".strip() for side, person in zip(SIDES[len(people)], people, strict=True))
    return f"{COUNTS[len(people)]} {PLACES[scene.background.place]}: {described}"


def describe_setting(scene: Scene, rng: np.random.Generator, cue_share: float = CUE_SHARE) -> str:
    """The image without its people: count, place, clothes and actions of everybody, in random order.

    A share ``cue_share`` of the people, in [0, 1], is mentioned with one lasting trait; nothing else identifies
    anybody.
    """
    if not scene.people:
        return describe_scene(scene)
    count = len(scene.people)
    sided = rng.random() < SIDES_SHARE
    described = []
    for place in rng.permutation(count):
        person = scene.people[int(place)]
        cues = _said("trait", person.identity)
        cue = f" with {cues[int(rng.integers(len(cues)))]}," if rng.random() < cue_share else ""
        side = SIDES[count][int(place)] if sided else ""
        described.append(f"{side} a person{cue} {describe_outfit(person.outfit)}".strip())
    return f"{COUNTS[count]} {PLACES[scene.background.place]}: {'; '.join(described)}"


def _said(part: Part, owner: Identity | Outfit) -> list[str]:
    phrases = [attribute.phrase(owner) for attribute in known_attributes() if attribute.part == part]
    return [phrase for phrase in phrases if phrase is not None]


def _listed(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
