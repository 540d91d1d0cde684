"""What judges think of a group of pictures (paper, eq. 9): the text's, the eye's and the people's side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mcpipe.models.protocols import FaceAnalyser, ImageTextEncoder, Picture, PreferenceScorer
from mcpipe.objectives.reward import identity_reward


@dataclass(frozen=True)
class Judges:
    """Frozen models that score pictures."""

    faces: FaceAnalyser
    clip: ImageTextEncoder
    preference: PreferenceScorer


def rewards(
    judges: Judges, pictures: Sequence[Picture], text: str, people: Float[np.ndarray, "N D"]
) -> dict[str, Float[Tensor, " group"]]:
    """Scores of pictures drawn from one text and the embeddings of the people it is about, unweighted.

    ``text`` is the cosine of picture and text, ``aesthetic`` the preference score, ``identity`` the Multi-ID alignment.
    """
    similarity = judges.clip.pictures(pictures) @ judges.clip.texts([text])[0]
    found = [judges.faces.faces(picture).embeddings for picture in pictures]
    identity = [identity_reward(people @ embeddings.T) for embeddings in found]
    scores = {
        "text": similarity,
        "aesthetic": judges.preference.scores(pictures, [text] * len(pictures)),
        "identity": np.array(identity),
    }
    return {name: torch.from_numpy(np.asarray(values, np.float64)) for name, values in scores.items()}
