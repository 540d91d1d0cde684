"""Lasting traits of a person, clothes in one scene, and the random streams that they are drawn from.

Which traits there are is up to the modules in the folder ``attributes``; a trait is read as ``identity.glasses``.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

SEEDS = 1 << 31
"""How many seeds there are for a place's details, for an image's noise, and for people met only once."""


def world_rng(namespace: str, *numbers: int) -> np.random.Generator:
    """The stream of random numbers of one named part of the world; other names or numbers give other streams."""
    digest = hashlib.sha256(namespace.encode()).digest()
    return np.random.default_rng([int.from_bytes(digest[:8], "little"), *numbers])


@dataclass(frozen=True)
class Traits:
    """Named values that belong to one person."""

    values: Mapping[str, Any]

    SHARED_STREAM: ClassVar[tuple[str, ...]] = ()
    """Traits drawn one after the other from one stream; every other trait has a stream of its own."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """The value of a trait."""
        try:
            return self.__dict__["values"][name]
        except KeyError:
            raise AttributeError(f"no trait {name!r}; is a module missing in the folder attributes?") from None

    def changed(self, **values: Any) -> Self:  # noqa: ANN401
        """The same with other values of some traits."""
        return type(self)({**self.values, **values})

    @property
    def seed(self) -> int:
        """A number that two people share only if they are equal."""
        return int.from_bytes(hashlib.sha256(repr(dict(self.values)).encode()).digest()[:8], "little")


class Identity(Traits):
    """The lasting traits of one person."""

    SHAPE: ClassVar = (
        "face_width", "jaw", "eye_gap", "eye_height", "eye_size", "brow_thickness", "brow_tilt", "nose_length",
        "nose_width", "mouth_width", "mouth_height", "lip_thickness", "ear_size", "fringe", "parting", "freckles",
        "build",
    )  # fmt: skip
    SHARED_STREAM = (
        "hair_colour", "eye_colour", "glasses", "skin", "hair_cut", "hair_rgb", "eye_rgb", "facial_hair",
        "round_glasses", *SHAPE,
    )  # fmt: skip

    @property
    def geometry(self) -> Traits:
        """The traits that are lengths and strengths, without the rest."""
        return Traits({name: self.values[name] for name in self.SHAPE})

    @property
    def key(self) -> str:
        """A short name that two identities share only if they are equal."""
        names = (
            "skin", "hair_cut", "hair_colour", "hair_rgb", "eye_colour", "eye_rgb", "facial_hair", "glasses",
            "round_glasses",
        )  # fmt: skip
        added = [item for item in self.values.items() if item[0] not in self.SHARED_STREAM]
        values = (*(self.values[name] for name in names), tuple(self.geometry.values.values()), *added)
        return hashlib.sha256(repr(values).encode()).hexdigest()[:10]


class Outfit(Traits):
    """Clothes and held object of a person in one scene."""

    SHARED_STREAM = ("colour", "pattern", "rgb", "long_sleeves", "collar", "held")
