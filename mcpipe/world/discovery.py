"""Attributes of people, and their discovery in the folder ``attributes``.

An attribute is one module with an `ATTRIBUTE`: how it is drawn at random, how it is painted, and what captions say of
it. A new module in the folder is a new attribute; nothing else names it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np

from mcpipe.world import attributes as folder
from mcpipe.world.traits import Identity, Outfit, Traits, world_rng

if TYPE_CHECKING:
    from mcpipe.world.body import Body
    from mcpipe.world.canvas import Canvas

Part = Literal["trait", "shirt", "garment", "object"]
"""Owner of an attribute, and its place in captions: "with ..." a lasting trait of the identity; of the clothes
of one scene, the words before the shirt, "wearing a shirt and ..." a garment, "holding ..." an object."""

Place = Literal["behind", "shirt", "hand", "skin", "jaw", "eyes", "brows", "lip", "eyewear", "hair", "top"]
"""Where in the order of painting: behind the neck; on the trunk; between the arm and the hand that holds; and on the
head: over the skin, over the jaw, eyes, brows, between mouth and nose, over the nose, over the forehead, over all.
From "skin" to "eyewear" nothing is painted on a head that looks away."""

Draw = Callable[[np.random.Generator, Mapping[str, Any]], Any]
"""Function that draws the value of one trait after the values drawn before; plain Python values print alike."""

Painter = Callable[["Canvas", "Body", int], None]
"""Paints on the canvas what belongs to a body; what reaches beyond the body's outline is painted under the label."""

Person = TypeVar("Person", bound=Traits)


def _no_words(_traits: Traits) -> dict[str, str]:
    return {}


def _nothing_said(_traits: Traits) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """One thing about a person."""

    order: int
    """Rank in captions and in `VOCABULARY`, and among painters of the same place."""

    part: Part
    draws: Mapping[str, Draw]
    """The traits it consists of, by name."""

    paints: Mapping[Place, Painter] = field(default_factory=dict)
    vocabulary: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """All values of each word that `words` returns."""

    words: Callable[[Any], Mapping[str, str]] = _no_words
    """Description of an identity or an outfit, one word per entry of `vocabulary`."""

    phrase: Callable[[Any], str | None] = _nothing_said
    """Phrase in a caption, or None without a phrase; a garment and an object come without their article."""

    def __post_init__(self) -> None:
        """Check that place and part exist; otherwise nothing would be painted or described.

        Raises:
            ValueError: a place or a part is unknown.
        """
        if unknown := {self.part, *self.paints} - {*get_args(Part), *get_args(Place)}:
            raise ValueError(f"no such place or part: {', '.join(sorted(unknown))}")

    @property
    def owner(self) -> type[Traits]:
        """`Identity` if the attribute lasts, `Outfit` if it changes from scene to scene."""
        return Identity if self.part == "trait" else Outfit


@cache
def attributes() -> tuple[Attribute, ...]:
    """Every attribute of the folder, in order.

    Raises:
        ValueError: two attributes draw or describe the same thing, or a trait's name has another meaning already.
    """
    names = sorted(module.name for module in iter_modules(folder.__path__))
    modules = [import_module(f"{folder.__name__}.{name}").ATTRIBUTE for name in names]
    own = ["values", *(name for name in dir(Identity) if name[0] != "_")]
    for kind, taken in (("draws", own), ("vocabulary", [])):
        named = Counter([*taken, *(name for attribute in modules for name in getattr(attribute, kind))])
        if twice := [name for name, count in named.items() if count > 1]:
            raise ValueError(f"{kind} of {folder.__name__}: the name {', '.join(twice)} is taken")
    return tuple(sorted(modules, key=lambda attribute: attribute.order))


@cache
def painters(place: Place) -> tuple[Painter, ...]:
    """All painters of a place, in order."""
    return tuple(attribute.paints[place] for attribute in attributes() if place in attribute.paints)


def sampled(owner: type[Person], rng: np.random.Generator) -> Person:
    """A new identity or outfit.

    Traits of the shared stream are drawn from ``rng``. Every other trait is drawn from a stream that follows from
    those and from its own name, so that a new attribute leaves all that was there before as it was.
    """
    draws = {
        name: draw for attribute in attributes() if attribute.owner is owner for name, draw in attribute.draws.items()
    }
    values: dict[str, Any] = {}
    for name in owner.SHARED_STREAM:
        values[name] = draws.pop(name)(rng, values)
    seed = owner(values).seed
    for name, draw in draws.items():
        values[name] = draw(world_rng(f"trait {name}", seed), values)
    return owner(values)
