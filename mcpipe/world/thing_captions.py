"""True captions of things, in two forms.

`describe_things` describes every thing, from left to right:

    two things in a park: on the left a striped red and white cup with a blue handle; on the right a black lamp

`name_things` leaves that to the references:

    a cup and a lamp on a table in a park
"""

from collections.abc import Sequence

import numpy as np

from mcpipe.world.captions import SIDES, SIDES_SHARE
from mcpipe.world.colours import COLOURS, Colour
from mcpipe.world.scene import PLACES
from mcpipe.world.things import FAMILIES, PARTS, PATTERNS, PROPORTIONS, Thing, ThingScene

VOCABULARY: dict[str, tuple[str, ...]] = {
    "family": FAMILIES,
    "colour": tuple(COLOURS),
    "pattern": tuple(PATTERNS),
    "second_colour": (*COLOURS, "none"),
    "part": PARTS,
    "part_colour": (*COLOURS, "none"),
}
"""Every value each word about a thing can take (`thing_words`)."""

COUNTS = {1: "one thing", 2: "two things", 3: "three things"}

GREY: Colour = (127.5, 127.5, 127.5)
"""What `thing_vector` tells of a colour that does not show."""


def thing_words(thing: Thing) -> dict[str, str]:
    """The words about a thing, one per entry of `VOCABULARY`; "none" for what does not show."""
    design = thing.design
    return {
        "family": thing.family,
        "colour": thing.colour,
        "pattern": design.pattern,
        "second_colour": "none" if design.pattern == "plain" else thing.second_colour,
        "part": design.part,
        "part_colour": "none" if design.part == "none" else thing.part_colour,
    }


def thing_vector(thing: Thing) -> list[float]:
    """Colours and proportions as numbers in about [-1, 1]; 0 for what does not show."""
    design, words = thing.design, thing_words(thing)
    colours = [
        design.rgb,
        design.second_rgb if words["second_colour"] != "none" else GREY,
        design.part_rgb if words["part_colour"] != "none" else GREY,
    ]
    hidden = {"pitch", "tilt"} if design.pattern == "plain" else set()
    proportions = [0.0 if name in hidden else 2 * getattr(design, name) - 1 for name in PROPORTIONS]
    return [value / 127.5 - 1 for colour in colours for value in colour] + proportions


def describe_thing(thing: Thing) -> str:
    """One thing: "a striped red and white cup with a blue handle"."""
    words = thing_words(thing)
    colours = [words[name] for name in ("colour", "second_colour") if words[name] != "none"]
    pattern = "" if words["pattern"] == "plain" else f"{words['pattern']} "
    part = "" if words["part"] == "none" else f" with {with_article(words['part_colour'])} {words['part']}"
    return f"{with_article(pattern + ' and '.join(colours))} {thing.family}{part}"


def describe_things(scene: ThingScene) -> str:
    """The whole image: count, place, and every thing from left to right."""
    return _sided(scene, [describe_thing(place.thing) for place in scene.places])


def name_things(scene: ThingScene, rng: np.random.Generator) -> str:
    """The image without what its things design like: their families and the place, with or without sides."""
    names = [with_article(place.thing.family) for place in scene.places]
    if rng.random() < SIDES_SHARE:
        return _sided(scene, names)
    listed = [names[int(index)] for index in rng.permutation(len(names))]
    return f"{' and '.join([', '.join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)} {_where(scene)}"


def _sided(scene: ThingScene, said: Sequence[str]) -> str:
    sides = SIDES[len(said)]
    return f"{COUNTS[len(said)]} {_where(scene)}: " + "; ".join(map(" ".join, zip(sides, said, strict=True)))


def _where(scene: ThingScene) -> str:
    return f"{'' if scene.table is None else 'on a table '}{PLACES[scene.background.place]}"


def with_article(noun: str) -> str:
    """A noun after "a" or "an"."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
