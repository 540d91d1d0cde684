"""Rewards of a group of images (paper, eq. 9): text alignment, human preference and identity; a judge's score (PSR)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mcpipe.core.records import RejectionError
from mcpipe.core.rounding import cosines
from mcpipe.core.sizes import Size
from mcpipe.models.protocols import (
    FaceAnalyser,
    Grounder,
    ImageEncoder,
    ImageTextEncoder,
    Offloadable,
    Picture,
    PreferenceScorer,
    SemanticJudge,
)
from mcpipe.objectives.pairwise import boxes_by_name, crop
from mcpipe.objectives.reward import Matching, identity_reward

DETAIL_LENGTH = 300
"""Largest length of an error's detail, in characters."""
EVERYTHING = ""
"""No subset of PSRBench: a judge scores everything that the prompt says."""
T = TypeVar("T")


@dataclass(frozen=True)
class Prompt:
    """A text and references of the people, or objects, it is about."""

    key: str
    text: str
    references: Sequence[Picture]
    """Square images of one size, shared with all other prompts about the same subject."""
    embeddings: Float[np.ndarray, "N D"]
    """Embeddings of the references by the identity scorer; unit length."""
    heldout_embeddings: Float[np.ndarray, "N E"]
    """Embeddings by the held-out scorer; zeros for a reference in which it detects nothing."""
    names: tuple[str, ...] = ()
    """Phrase that describes each subject, such as "a red mug", for a detector that takes phrases."""
    size: int | Size | None = None
    """Side, or width and height, of its images in pixels; ``None`` for those of the network's own grid."""


class IdentityScorer(Protocol):
    """Compares the subjects of an image with the references of its prompt."""

    def similarity(
        self, picture: Picture, prompt: Prompt, references: Float[np.ndarray, "N D"]
    ) -> Float[np.ndarray, "N F"]:
        """Cosine of every reference and every detected subject, 0 where the two cannot be the same; F may be 0.

        ``references`` are the embeddings of the prompt's references by this scorer, in their order.
        """
        ...


class ObjectDetector(Protocol):
    """Detects objects by a phrase and crops them."""

    def crops(self, picture: Picture, phrase: str) -> Sequence[UInt8[np.ndarray, "S S 3"]]:
        """A square crop of every object that a phrase describes, white outside its mask; in any order."""
        ...


@dataclass(frozen=True)
class FaceScorer:
    """Compares people by face recognition."""

    analyser: FaceAnalyser

    def similarity(
        self,
        picture: Picture,
        prompt: Prompt,  # noqa: ARG002  any face may be anybody's
        references: Float[np.ndarray, "N D"],
    ) -> Float[np.ndarray, "N F"]:
        """Cosine of every reference and every detected face."""
        return cosines(references, self.analyser.faces(picture).embeddings)


@dataclass(frozen=True)
class ObjectScorer:
    """Compares objects by appearance, each located by its own phrase (paper, section 4.4: in DINOv2's space)."""

    detector: ObjectDetector
    encoder: ImageEncoder

    def similarity(
        self, picture: Picture, prompt: Prompt, references: Float[np.ndarray, "N D"]
    ) -> Float[np.ndarray, "N F"]:
        """Cosine of every reference and every object that its own name found; 0 for those found by other names.

        Objects of one name are found together, and any of them may be any reference of that name.

        Raises:
            ValueError: the prompt does not name every subject.
        """
        _check_names(prompt, references)
        crops = [(name, crop) for name in dict.fromkeys(prompt.names) for crop in self.detector.crops(picture, name)]
        if not crops:
            return np.zeros((len(references), 0), np.float32)
        cosines = references @ self.encoder.pictures([crop for _, crop in crops]).T
        is_own = np.array([[name == found_by for found_by, _ in crops] for name in prompt.names])
        return np.where(is_own, cosines, 0)


@dataclass(frozen=True)
class PairwiseScorer:
    """Compares every subject with its own reference, both located by the subject's name (PSR, arXiv:2512.01236)."""

    grounder: Grounder
    encoder: ImageEncoder

    def features(self, picture: Picture, names: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Embedding of the box of every named subject of an image, unit length; zeros for one that is not located."""
        detections = {name: self.grounder.boxes(picture, name) for name in dict.fromkeys(names)}
        crops = [crop(picture, box) for box in boxes_by_name(names, detections)]
        features = self.encoder.pictures([picture if cut is None else cut for cut in crops])
        return np.where(np.array([cut is not None for cut in crops])[:, None], features, 0)

    def similarity(
        self, picture: Picture, prompt: Prompt, references: Float[np.ndarray, "N D"]
    ) -> Float[np.ndarray, "N N"]:
        """Cosine of every reference and the subject of its name on the diagonal, 0 elsewhere and for a missing one.

        Raises:
            ValueError: the prompt does not name every subject.
        """
        _check_names(prompt, references)
        return np.diag((references * self.features(picture, prompt.names)).sum(axis=1))


@dataclass(frozen=True)
class Scorers:
    """Frozen models that score images."""

    identity: IdentityScorer
    clip: ImageTextEncoder
    preference: PreferenceScorer
    heldout: IdentityScorer
    """Scorer outside the reward: if the reward rises while its score falls, the reward is hacked."""
    judge: SemanticJudge | None = None
    """Model that scores everything a prompt says; ``None`` without such a reward."""
    are_offloaded: bool = False
    """Whether models that can be moved rest in main memory while no image is scored."""

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Within this context the models are on their device."""
        for model in self._movable:
            model.to_device()
        try:
            yield
        finally:
            for model in self._movable:
                model.to_main_memory()

    def offloaded(self) -> "Scorers":
        """The same models, resting in main memory while no image is scored."""
        resting = replace(self, are_offloaded=True)
        for model in resting._movable:
            model.to_main_memory()
        return resting

    @property
    def _movable(self) -> list[Offloadable]:
        models = (self.identity, self.clip, self.preference, self.heldout, self.judge) if self.are_offloaded else ()
        return [model for model in models if isinstance(model, Offloadable)]


class ScorerError(RejectionError):
    """A scorer returned no finite score for a group of images; ``reason`` is the name to count by."""


def rewards(
    scorers: Scorers, images: Sequence[Picture], prompt: Prompt, matching: Matching
) -> dict[str, Float[Tensor, " group"]]:
    """Unweighted rewards of images of one prompt.

    ``text`` is the cosine of image and text, ``aesthetic`` the preference score, ``identity`` the Multi-ID alignment or
    PSR's pairwise consistency (`mcpipe.objectives.reward`). With a judge there is ``semantic``, its score in [0, 1],
    NaN for an image of which it gave no valid one.

    Raises:
        ScorerError: a scorer failed, or a score is not finite.
    """
    texts, references = [prompt.text] * len(images), prompt.embeddings
    scores = {
        "text": _scores("text", lambda: scorers.clip.pictures(images) @ scorers.clip.texts([prompt.text])[0]),
        "aesthetic": _scores("aesthetic", lambda: scorers.preference.scores(images, texts)),
        "identity": _scores("identity", lambda: _identity(scorers.identity, images, prompt, references, matching)),
    }
    judge = scorers.judge
    if judge is not None:
        verdicts = _called(
            "semantic", lambda: [judge.verdict(image, EVERYTHING, prompt.text).score for image in images]
        )
        scores["semantic"] = torch.tensor(
            [np.nan if score is None else score for score in verdicts], dtype=torch.float64
        )
    return scores


def heldout_identity(scorers: Scorers, images: Sequence[Picture], prompt: Prompt) -> Float[Tensor, " group"]:
    """Multi-ID alignment by the held-out scorer, always with Hungarian matching.

    Raises:
        ScorerError: the scorer failed, or a score is not finite.
    """
    references = prompt.heldout_embeddings
    return _scores("heldout", lambda: _identity(scorers.heldout, images, prompt, references, "hungarian"))


def _identity(
    scorer: IdentityScorer,
    images: Sequence[Picture],
    prompt: Prompt,
    references: Float[np.ndarray, "N D"],
    matching: Matching,
) -> Float[np.ndarray, " group"]:
    similarities = [scorer.similarity(image, prompt, references) for image in images]
    return np.array([identity_reward(similarity, matching) for similarity in similarities])


def _check_names(prompt: Prompt, references: Float[np.ndarray, "N D"]) -> None:
    if len(prompt.names) != len(references):
        raise ValueError(f"prompt {prompt.key} has {len(references)} subjects and {len(prompt.names)} names")


def _called(name: str, score: Callable[[], T]) -> T:
    """The answer of a scorer; any error of it becomes a `ScorerError`."""
    try:
        return score()
    except Exception as error:  # any error of a library drops only this group
        detail = " ".join(f"{type(error).__name__}: {error}".split())[:DETAIL_LENGTH]
        raise ScorerError(f"{name}_failed", detail) from error


def _scores(name: str, score: Callable[[], np.ndarray]) -> Float[Tensor, " group"]:
    scores = torch.from_numpy(_called(name, lambda: np.asarray(score(), np.float64)))
    if not bool(torch.isfinite(scores).all()):
        raise ScorerError(f"{name}_not_finite", str(scores.tolist())[:DETAIL_LENGTH])
    return scores
