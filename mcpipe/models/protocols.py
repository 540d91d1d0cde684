"""What the pipeline asks of a model; adapters in this room answer with the vendors' libraries.

Pictures are uint8 RGB arrays, boxes are ``x0 y0 x1 y1`` in pixels of the picture given. Legend of shapes: H, W height
and width; P people; F faces; B batch; D embedding width. Embeddings have unit length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, UInt8

Picture = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class People:
    """People found in one picture, most certain first."""

    boxes: Float[np.ndarray, "P 4"]
    scores: Float[np.ndarray, " P"]
    """Certainty in [0, 1]."""
    keypoints: Float[np.ndarray, "P 17 3"]
    """COCO order; x, y in pixels and certainty in [0, 1]."""


@dataclass(frozen=True)
class Faces:
    """Faces found in one picture, most certain first."""

    boxes: Float[np.ndarray, "F 4"]
    scores: Float[np.ndarray, " F"]
    """Certainty in [0, 1]."""
    landmarks: Float[np.ndarray, "F 5 2"]
    """Left eye, right eye, nose, left and right mouth corner as seen in the picture."""
    embeddings: Float[np.ndarray, "F D"]


class PoseDetector(Protocol):
    """Finds people and their joints."""

    def people(self, picture: Picture) -> People:
        """Everyone in the picture."""
        ...


class Segmenter(Protocol):
    """Cuts out what a box points at."""

    def masks(self, picture: Picture, boxes: Float[np.ndarray, "P 4"]) -> Bool[np.ndarray, "P H W"]:
        """One mask per box, raw: neither cleaned nor disjoint."""
        ...


class FaceAnalyser(Protocol):
    """Finds faces and says who they are."""

    name: str
    """Name of the recogniser, which selects its thresholds."""

    def faces(self, picture: Picture) -> Faces:
        """Every face in the picture, small ones and ones that fill it alike."""
        ...


class Captioner(Protocol):
    """A vision-language model that answers an instruction about pictures."""

    def answer(
        self, pictures: Sequence[Picture], instruction: str, *, temperature: float, seed: int, max_tokens: int
    ) -> str:
        """One answer; ``temperature`` 0 decodes greedily, otherwise it samples reproducibly from ``seed``."""
        ...


class TextLimit(Protocol):
    """The length of the texts that a generator reads."""

    def lost(self, text: str) -> str:
        """The end of a text that the generator does not see; empty if it sees all of it."""
        ...


class ImageTextEncoder(Protocol):
    """A joint space of pictures and texts (CLIP)."""

    def pictures(self, pictures: Sequence[Picture]) -> Float[np.ndarray, "B D"]:
        """Embeddings of pictures."""
        ...

    def texts(self, texts: Sequence[str]) -> Float[np.ndarray, "B D"]:
        """Embeddings of texts, cut at the model's length."""
        ...


class ImageEncoder(Protocol):
    """A space of pictures (DINO, DINOv2)."""

    def pictures(self, pictures: Sequence[Picture]) -> Float[np.ndarray, "B D"]:
        """CLS embeddings of pictures."""
        ...


class PreferenceScorer(Protocol):
    """A model of human preference (HPS v2.1)."""

    def scores(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Float[np.ndarray, " B"]:
        """One score per picture and its prompt: a cosine in [-1, 1], without a factor of 100."""
        ...
