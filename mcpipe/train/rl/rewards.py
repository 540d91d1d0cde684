"""What judges think of a group of pictures (paper, eq. 9): the text's, the eye's and the people's side."""

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
"""Characters of an error that are kept."""


@dataclass(frozen=True)
class Prompt:
    """A text and the people, or the objects, it is about."""

    key: str
    text: str
    faces: UInt8[np.ndarray, "N R R 3"]
    """References."""
    embeddings: Float[np.ndarray, "N D"]
    """Embeddings of the references by the identity scorer; unit length."""
    heldout_embeddings: Float[np.ndarray, "N E"]
    """By the judge that only watches; zeros for a reference that it does not see."""
    names: tuple[str, ...] = ()
    """What each subject is called, for a detector that finds by name."""


class IdentityJudge(Protocol):
    """Says who or what is in a picture, in the space of a prompt's embeddings."""

    def embeddings(self, picture: Picture, prompt: Prompt) -> Float[np.ndarray, "F D"]:
        """One embedding of unit length per subject found, in any order; none if nothing is found."""
        ...


class ObjectDetector(Protocol):
    """Finds objects by name and cuts them out."""

    def crops(self, picture: Picture, names: Sequence[str]) -> Sequence[UInt8[np.ndarray, "S S 3"]]:
        """Everything found of any of the names, square, white outside of its mask; in any order."""
        ...


@dataclass(frozen=True)
class FaceJudge:
    """People, told apart by a recogniser of faces."""

    analyser: FaceAnalyser

    def embeddings(self, picture: Picture, prompt: Prompt) -> Float[np.ndarray, "F D"]:  # noqa: ARG002  all faces count
        """Embeddings of every face."""
        return self.analyser.faces(picture).embeddings


@dataclass(frozen=True)
class ObjectJudge:
    """Objects, told apart by their looks (paper, section 4.4: found by name and mask, compared in DINOv2's space)."""

    detector: ObjectDetector
    encoder: ImageEncoder

    def embeddings(self, picture: Picture, prompt: Prompt) -> Float[np.ndarray, "F D"]:
        """Embeddings of every detected object."""
        crops = self.detector.crops(picture, prompt.names)
        return self.encoder.pictures(crops) if len(crops) else np.zeros((0, prompt.embeddings.shape[1]), np.float32)


@dataclass(frozen=True)
class Judges:
    """Frozen models that score pictures."""

    identity: IdentityJudge
    clip: ImageTextEncoder
    preference: PreferenceScorer
    heldout: IdentityJudge
    """One that is no part of the reward: where the reward rises and its score falls, the reward is hacked."""


class JudgeError(RejectionError):
    """A judge that has no finite score for a group of pictures."""


def rewards(
    judges: Judges, pictures: Sequence[Picture], prompt: Prompt, matching: Matching
) -> dict[str, Float[Tensor, " group"]]:
    """Scores of pictures drawn from one prompt, unweighted.

    ``text`` is the cosine of picture and text, ``aesthetic`` the preference score, ``identity`` the Multi-ID alignment.

    Raises:
        JudgeError: a judge failed, or a score is not finite.
    """
    texts, wanted = [prompt.text] * len(pictures), prompt.embeddings
    return {
        "text": _scores("text", lambda: judges.clip.pictures(pictures) @ judges.clip.texts([prompt.text])[0]),
        "aesthetic": _scores("aesthetic", lambda: judges.preference.scores(pictures, texts)),
        "identity": _scores("identity", lambda: _identity(judges.identity, pictures, prompt, wanted, matching)),
    }


def heldout_identity(judges: Judges, pictures: Sequence[Picture], prompt: Prompt) -> Float[Tensor, " group"]:
    """Multi-ID alignment by the judge that only watches, one-to-one whatever the reward is.

    Raises:
        JudgeError: it failed, or a score is not finite.
    """
    wanted = prompt.heldout_embeddings
    return _scores("heldout", lambda: _identity(judges.heldout, pictures, prompt, wanted, "hungarian"))


def _identity(
    judge: IdentityJudge,
    pictures: Sequence[Picture],
    prompt: Prompt,
    wanted: Float[np.ndarray, "N D"],
    matching: Matching,
) -> Float[np.ndarray, " group"]:
    found = [judge.embeddings(picture, prompt) for picture in pictures]
    return np.array([identity_reward(wanted @ embeddings.T, matching) for embeddings in found])


def _scores(name: str, judge: Callable[[], np.ndarray]) -> Float[Tensor, " group"]:
    try:
        scores = torch.from_numpy(np.asarray(judge(), np.float64))
    except Exception as error:  # whatever a picture does to a library drops its group alone
        detail = " ".join(f"{type(error).__name__}: {error}".split())[:DETAIL_LENGTH]
        raise JudgeError(f"{name}_failed", detail) from error
    if not bool(torch.isfinite(scores).all()):
        raise JudgeError(f"{name}_not_finite", str(scores.tolist())[:DETAIL_LENGTH])
    return scores
