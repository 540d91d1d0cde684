"""What judges think of a group of pictures (paper, eq. 9): the text's, the eye's and the people's side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mcpipe.models.protocols import FaceAnalyser, ImageTextEncoder, Picture, PreferenceScorer
from mcpipe.objectives.reward import Matching, identity_reward

DETAIL_LENGTH = 300
"""Characters of an error that are kept."""


@dataclass(frozen=True)
class Prompt:
    """A text and the people it is about."""

    key: str
    text: str
    faces: UInt8[np.ndarray, "N R R 3"]
    embeddings: Float[np.ndarray, "N D"]
    """Of the faces, by the recogniser that also judges."""
    heldout_embeddings: Float[np.ndarray, "N D"]
    """By the recogniser that only watches; zeros for a face that it does not see."""


@dataclass(frozen=True)
class Judges:
    """Frozen models that score pictures."""

    faces: FaceAnalyser
    clip: ImageTextEncoder
    preference: PreferenceScorer
    heldout: FaceAnalyser
    """A recogniser that is no part of the reward: where the reward rises and its score falls, the reward is hacked."""


class JudgeError(ValueError):
    """A judge that has no finite score for a group of pictures; the first argument is the reason to count by."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def rewards(
    judges: Judges, pictures: Sequence[Picture], prompt: Prompt, matching: Matching
) -> dict[str, Float[Tensor, " group"]]:
    """Scores of pictures drawn from one prompt, unweighted.

    ``text`` is the cosine of picture and text, ``aesthetic`` the preference score, ``identity`` the Multi-ID alignment.

    Raises:
        JudgeError: a judge failed, or a score is not finite.
    """
    texts = [prompt.text] * len(pictures)
    return {
        "text": _scores("text", lambda: judges.clip.pictures(pictures) @ judges.clip.texts([prompt.text])[0]),
        "aesthetic": _scores("aesthetic", lambda: judges.preference.scores(pictures, texts)),
        "identity": _scores("identity", lambda: _identity(judges.faces, pictures, prompt.embeddings, matching)),
    }


def heldout_identity(judges: Judges, pictures: Sequence[Picture], prompt: Prompt) -> Float[Tensor, " group"]:
    """Multi-ID alignment by the recogniser that only watches, one-to-one whatever the reward is.

    Raises:
        JudgeError: it failed, or a score is not finite.
    """
    return _scores("heldout", lambda: _identity(judges.heldout, pictures, prompt.heldout_embeddings, "hungarian"))


def _identity(
    analyser: FaceAnalyser, pictures: Sequence[Picture], people: Float[np.ndarray, "N D"], matching: Matching
) -> Float[np.ndarray, " group"]:
    found = [analyser.faces(picture).embeddings for picture in pictures]
    return np.array([identity_reward(people @ embeddings.T, matching) for embeddings in found])


def _scores(name: str, judge: Callable[[], np.ndarray]) -> Float[Tensor, " group"]:
    try:
        scores = torch.from_numpy(np.asarray(judge(), np.float64))
    except Exception as error:  # whatever a picture does to a library drops its group alone
        detail = " ".join(f"{type(error).__name__}: {error}".split())[:DETAIL_LENGTH]
        raise JudgeError(f"{name}_failed", detail) from error
    if not bool(torch.isfinite(scores).all()):
        raise JudgeError(f"{name}_not_finite", str(scores.tolist())[:DETAIL_LENGTH])
    return scores
