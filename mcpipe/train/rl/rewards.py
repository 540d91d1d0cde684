"""Rewards of a group of images (paper, eq. 9): text alignment, human preference and identity."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mcpipe.core.records import RejectionError
from mcpipe.models.protocols import FaceAnalyser, ImageEncoder, ImageTextEncoder, Picture, PreferenceScorer
from mcpipe.objectives.reward import Matching, identity_reward

DETAIL_LENGTH = 300
"""Largest length of an error's detail, in characters."""


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
    """Name of each subject, for a detector that takes names."""


class IdentityScorer(Protocol):
    """Embeds the subjects of an image in the space of a prompt's embeddings."""

    def embeddings(self, picture: Picture, prompt: Prompt) -> Float[np.ndarray, "F D"]:
        """One embedding of unit length per detected subject, in any order; empty without a detection."""
        ...


class ObjectDetector(Protocol):
    """Detects objects by name and crops them."""

    def crops(self, picture: Picture, names: Sequence[str]) -> Sequence[UInt8[np.ndarray, "S S 3"]]:
        """A square crop of every object of any of the names, white outside its mask; in any order."""
        ...


@dataclass(frozen=True)
class FaceScorer:
    """Embeds people by face recognition."""

    analyser: FaceAnalyser

    def embeddings(self, picture: Picture, prompt: Prompt) -> Float[np.ndarray, "F D"]:  # noqa: ARG002  all faces count
        """Embeddings of all detected faces."""
        return self.analyser.faces(picture).embeddings


@dataclass(frozen=True)
class ObjectScorer:
    """Embeds objects by appearance (paper, section 4.4: detected by name and mask, compared in DINOv2's space)."""

    detector: ObjectDetector
    encoder: ImageEncoder

    def embeddings(self, picture: Picture, prompt: Prompt) -> Float[np.ndarray, "F D"]:
        """Embeddings of all detected objects."""
        crops = self.detector.crops(picture, prompt.names)
        return self.encoder.pictures(crops) if len(crops) else np.zeros((0, prompt.embeddings.shape[1]), np.float32)


@dataclass(frozen=True)
class Scorers:
    """Frozen models that score images."""

    identity: IdentityScorer
    clip: ImageTextEncoder
    preference: PreferenceScorer
    heldout: IdentityScorer
    """Scorer outside the reward: if the reward rises while its score falls, the reward is hacked."""


class ScorerError(RejectionError):
    """A scorer returned no finite score for a group of images; ``reason`` is the name to count by."""


def rewards(
    scorers: Scorers, images: Sequence[Picture], prompt: Prompt, matching: Matching
) -> dict[str, Float[Tensor, " group"]]:
    """Unweighted rewards of images of one prompt.

    ``text`` is the cosine of image and text, ``aesthetic`` the preference score, ``identity`` the Multi-ID alignment.

    Raises:
        ScorerError: a scorer failed, or a score is not finite.
    """
    texts, references = [prompt.text] * len(images), prompt.embeddings
    return {
        "text": _scores("text", lambda: scorers.clip.pictures(images) @ scorers.clip.texts([prompt.text])[0]),
        "aesthetic": _scores("aesthetic", lambda: scorers.preference.scores(images, texts)),
        "identity": _scores("identity", lambda: _identity(scorers.identity, images, prompt, references, matching)),
    }


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
    detections = [scorer.embeddings(image, prompt) for image in images]
    return np.array([identity_reward(references @ embeddings.T, matching) for embeddings in detections])


def _scores(name: str, score: Callable[[], np.ndarray]) -> Float[Tensor, " group"]:
    try:
        scores = torch.from_numpy(np.asarray(score(), np.float64))
    except Exception as error:  # any error of a library drops only this group
        detail = " ".join(f"{type(error).__name__}: {error}".split())[:DETAIL_LENGTH]
        raise ScorerError(f"{name}_failed", detail) from error
    if not bool(torch.isfinite(scores).all()):
        raise ScorerError(f"{name}_not_finite", str(scores.tolist())[:DETAIL_LENGTH])
    return scores
