"""The pools of faces and of things, the prompts about some of them, and the images that answer the prompts."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, UInt8
from pydantic import JsonValue

from mcpipe.core.schemas.typed import TypedRecord


@dataclass(frozen=True, kw_only=True)
class PoolFace(TypedRecord):
    """The one face of a file of the pool."""

    KIND: ClassVar[str] = "face"
    STAGE: ClassVar[str] = "pairs"

    file: str
    """Name of the file."""
    attributes: dict[str, JsonValue]
    """The file's row in the table beside the pool, by column; empty without a row."""
    reference: UInt8[np.ndarray, "reference reference 3"]
    """As the generator sees it."""
    closeup: UInt8[np.ndarray, "closeup closeup 3"]
    """As the captioner sees it."""
    embedding: Float[np.ndarray, " width"]
    """Unit length."""
    landmarks: Float[np.ndarray, "5 2"]
    """See `mcpipe.bench.landmarks`."""


@dataclass(frozen=True, kw_only=True)
class PoolThing(TypedRecord):
    """An object with a reference."""

    KIND: ClassVar[str] = "thing"
    STAGE: ClassVar[str] = "prompts"

    phrase: str
    """What a detector looks for: "a leather bag"."""
    reference: UInt8[np.ndarray, "reference reference 3"]
    """On white, as the generator sees it."""


@dataclass(frozen=True, kw_only=True)
class PairPrompt(TypedRecord):
    """A prompt about some subjects of the pool."""

    KIND: ClassVar[str] = "prompt"
    STAGE: ClassVar[str] = "pairs"

    prompt: str
    names: tuple[str, ...]
    """Keys of the subjects in the pool."""


@dataclass(frozen=True, kw_only=True)
class GeneratedImage(TypedRecord):
    """An image drawn for a prompt."""

    KIND: ClassVar[str] = "image"
    STAGE: ClassVar[str] = "generate"

    prompt: str
    names: tuple[str, ...]
    """Keys of the subjects in the pool, whose references were given."""
    seed: int
    """Seed of its noise."""
    image: UInt8[np.ndarray, "height width 3"]
    attention: Float[np.ndarray, "references rows columns"] | None = None
    """Attention of each reference to the image, a map that sums to 1; ``None`` where it was not recorded."""


@dataclass(frozen=True, kw_only=True)
class RealTarget(TypedRecord):
    """A held-out target of the training data after the VAE, which no model drew: the ceiling of its likeness."""

    KIND: ClassVar[str] = "real target"
    STAGE: ClassVar[str] = "generate"

    names: tuple[str, ...]
    """Names of the subjects, in the order of ``references``."""
    image: UInt8[np.ndarray, "height width 3"]
    references: UInt8[np.ndarray, "subjects reference reference 3"]
    """As training sees them, from another moment."""
