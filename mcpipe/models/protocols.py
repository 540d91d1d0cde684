"""Protocols of the models that the pipeline uses; adapters in this package implement them with vendors' libraries.

Images are uint8 RGB arrays, boxes are ``x0 y0 x1 y1`` in pixels of the image given. Legend of shapes: H, W height
and width; P people; F faces; B batch; D embedding width. Embeddings have unit length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, UInt8

Picture = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class People:
    """People detected in one image, sorted by descending score."""

    boxes: Float[np.ndarray, "P 4"]
    scores: Float[np.ndarray, " P"]
    """Certainty in [0, 1]."""
    keypoints: Float[np.ndarray, "P 17 3"]
    """COCO order; x, y in pixels and certainty in [0, 1]."""


@dataclass(frozen=True)
class Faces:
    """Faces detected in one image, sorted by descending score."""

    boxes: Float[np.ndarray, "F 4"]
    scores: Float[np.ndarray, " F"]
    """Certainty in [0, 1]."""
    landmarks: Float[np.ndarray, "F 5 2"]
    """Left eye, right eye, nose, left and right mouth corner as seen in the image."""
    embeddings: Float[np.ndarray, "F D"]

    @property
    def identity(self) -> Float[np.ndarray, " D"]:
        """Embedding of the most certain face; without a face zeros, whose cosine with anybody is 0."""
        return self.embeddings[0] if len(self.embeddings) else np.zeros(self.embeddings.shape[1], np.float32)


@runtime_checkable
class Offloadable(Protocol):
    """A model that can give up its device's memory between two uses."""

    def to_main_memory(self) -> None:
        """Move the weights to main memory."""
        ...

    def to_device(self) -> None:
        """Move the weights to the device on which the model runs."""
        ...


class PoseDetector(Protocol):
    """A detector of people and their joints."""

    def people(self, picture: Picture) -> People:
        """The people in an image."""
        ...


class Segmenter(Protocol):
    """A segmentation model prompted by boxes."""

    def masks(self, picture: Picture, boxes: Float[np.ndarray, "P 4"]) -> Bool[np.ndarray, "P H W"]:
        """One raw mask per box, neither cleaned nor disjoint."""
        ...


class Grounder(Protocol):
    """A detector of the objects that a phrase describes."""

    def boxes(self, picture: Picture, phrase: str) -> tuple[Float[np.ndarray, "N 4"], Float[np.ndarray, " N"]]:
        """Boxes ``x0 y0 x1 y1`` in pixels, in the model's own order, and their certainties in [0, 1]."""
        ...


class FaceAnalyser(Protocol):
    """A detector of faces with a recogniser."""

    name: str
    """Name of the recogniser, which selects its thresholds."""

    def faces(self, picture: Picture) -> Faces:
        """The faces in an image, including small ones and ones that fill it."""
        ...


class Captioner(Protocol):
    """A vision-language model that answers an instruction about images."""

    def answer(
        self, pictures: Sequence[Picture], instruction: str, *, temperature: float, seed: int, max_tokens: int
    ) -> str:
        """One answer; ``temperature`` 0 decodes greedily, otherwise it samples reproducibly from ``seed``."""
        ...


class TextLimit(Protocol):
    """The maximum length of a generator's texts."""

    def lost(self, text: str) -> str:
        """The end of a text that the generator does not read; empty if it reads the whole text."""
        ...


class ImageTextEncoder(Protocol):
    """A joint embedding space of images and texts (CLIP)."""

    def pictures(self, pictures: Sequence[Picture]) -> Float[np.ndarray, "B D"]:
        """Embeddings of images."""
        ...

    def texts(self, texts: Sequence[str]) -> Float[np.ndarray, "B D"]:
        """Embeddings of texts; of one that is longer than the model reads, the mean over its windows."""
        ...


class ImageEncoder(Protocol):
    """An embedding space of images (DINO, DINOv2)."""

    def pictures(self, pictures: Sequence[Picture]) -> Float[np.ndarray, "B D"]:
        """CLS embeddings of images."""
        ...


class PreferenceScorer(Protocol):
    """A model of human preference (HPS v2.1, HPSv3, PickScore)."""

    def scores(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Float[np.ndarray, " B"]:
        """One score per image and its prompt.

        That of HPS v2.1 is a cosine in [-1, 1], of PickScore one times its logit scale, of HPSv3 several units.
        """
        ...


@dataclass(frozen=True)
class Verdict:
    """What a multimodal model says of how well an image matches a prompt."""

    score: float | None
    """In [0, 1]; ``None`` if no attempt gave a valid score."""
    in_scripts: float | None
    """Score of the first answer by PSRBench's published scripts, in [0, 1] for valid answers; ``None`` if they drop
    it."""
    num_attempts: int


class SemanticJudge(Protocol):
    """A multimodal model that scores how well an image matches a prompt."""

    def verdict(self, picture: Picture, subset: str, prompt: str) -> Verdict:
        """The score for the aspect of a subset of PSRBench; for everything that the prompt says if it is no subset."""
        ...
