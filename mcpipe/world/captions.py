"""True captions of the world, in one fixed grammar.

    two people in a park: on the left a person with tan skin, short brown hair and glasses, wearing a red shirt and
    holding a blue ball; on the right a person with pale skin and a bald head, wearing a striped green shirt

Every person is mentioned once, from left to right, always with the words "a person".
"""

from collections.abc import Sequence

from mcpipe.world.identities import FACIAL_HAIR, HAIR_COLOURS, HAIR_CUTS, SKIN_TONES, Identity
from mcpipe.world.outfits import COLOURS, OBJECTS, PATTERNS, Outfit
from mcpipe.world.scene import PLACES, Scene

COUNTS = {1: "one person", 2: "two people", 3: "three people"}
SIDES = {
    1: ("in the middle",),
    2: ("on the left", "on the right"),
    3: ("on the left", "in the middle", "on the right"),
}
VOCABULARY: dict[str, tuple[str, ...]] = {
    "skin": tuple(SKIN_TONES),
    "hair_cut": HAIR_CUTS,
    "hair_colour": tuple(HAIR_COLOURS),
    "facial_hair": tuple(FACIAL_HAIR),
    "glasses": ("glasses", "none"),
    "shirt_colour": tuple(COLOURS),
    "shirt_pattern": PATTERNS,
    "object": (*OBJECTS, "none"),
    "object_colour": (*COLOURS, "none"),
}
"""Every value each attribute of a person can take (`attributes`)."""


def attributes(identity: Identity, outfit: Outfit) -> dict[str, str]:
    """What a caption says about a person, one word per attribute of `VOCABULARY`."""
    held = outfit.held
    return {
        "skin": identity.skin_tone,
        "hair_cut": identity.hair_cut,
        "hair_colour": identity.hair_colour,
        "facial_hair": identity.facial_hair,
        "glasses": "none" if identity.glasses is None else "glasses",
        "shirt_colour": outfit.colour,
        "shirt_pattern": outfit.pattern,
        "object": "none" if held is None else held.kind,
        "object_colour": "none" if held is None else held.colour,
    }


def describe_face(identity: Identity) -> str:
    """The lasting traits alone: "a person with tan skin, short brown hair and glasses"."""
    bald = identity.hair_cut == "bald"
    traits = [
        f"{identity.skin_tone} skin",
        "a bald head" if bald else f"{identity.hair_cut} {identity.hair_colour} hair",
    ]
    if identity.facial_hair != "none":
        # A bald person's hair colour shows in the beard alone.
        traits.append(f"a {identity.hair_colour} {identity.facial_hair}" if bald else f"a {identity.facial_hair}")
    if identity.glasses is not None:
        traits.append("glasses")
    return f"a person with {_listed(traits)}"


def describe_person(identity: Identity, outfit: Outfit) -> str:
    """One person with clothes: "a person with ..., wearing a striped red shirt and holding a blue ball"."""
    shirt = f"striped {outfit.colour} shirt" if outfit.pattern == "striped" else f"{outfit.colour} shirt"
    held = outfit.held
    holding = "" if held is None else f" and holding {_with_article(f'{held.colour} {held.kind}')}"
    return f"{describe_face(identity)}, wearing {_with_article(shirt)}{holding}"


def describe_scene(scene: Scene) -> str:
    """The whole picture: count, place, and every person from left to right."""
    people = [describe_person(person.identity, person.outfit) for person in scene.people]
    if not people:
        return f"nobody {PLACES[scene.background.place]}"
    told = "; ".join(f"{side} {person}" for side, person in zip(SIDES[len(people)], people, strict=True))
    return f"{COUNTS[len(people)]} {PLACES[scene.background.place]}: {told}"


def _listed(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
