"""The benchmark's scores of one picture (paper, section 5.1).

Choices where the paper is silent or wrong:

1. A subject that is not found counts 0 and stays in the denominator.
2. DINO-I uses DINO, the self-supervised encoder; the paper cites a detector of the same name.
3. Located subjects are square face crops, cut like the references.
4. HPS is v2.1, which the published numbers fit.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from mcpipe.bench.bootstrap import Interval, IntervalParams, mean_interval
from mcpipe.bench.tables import METRICS
from mcpipe.models.protocols import FaceAnalyser, ImageEncoder, ImageTextEncoder, Picture, PreferenceScorer
from mcpipe.objectives.reward import identity_reward, match
from mcpipe.records import Record


@dataclass(frozen=True)
class Judges:
    """The models that score a picture."""

    faces: FaceAnalyser
    clip: ImageTextEncoder
    dino: ImageEncoder
    hps: PreferenceScorer
    crop: Callable[[Picture, Float[np.ndarray, " 4"]], Picture]
    """Cuts a found face out of a picture, framed like a reference."""


@dataclass(frozen=True)
class Reference:
    """A person to be shown, as the judges see them; all of unit length."""

    identity: Float[np.ndarray, " D"]
    clip: Float[np.ndarray, " C"]
    dino: Float[np.ndarray, " V"]


@dataclass(frozen=True)
class Score:
    """One picture's scores."""

    clip_t: float
    face_sim: float
    """In [0, 1]."""
    dino_i: float
    clip_i: float
    hps: float
    detection_rate: float
    """Share of the references for which a face was left, in [0, 1]."""
    num_faces: int
    """Faces found, also beyond those that are wanted."""


def references(faces: Iterable[Record], judges: Judges) -> dict[str, Reference]:
    """Every face of the pool as the judges see it, by its key."""
    return {
        face.key: Reference(
            identity=face.arrays["embedding"],
            clip=judges.clip.pictures([face.arrays["reference"]])[0],
            dino=judges.dino.pictures([face.arrays["reference"]])[0],
        )
        for face in faces
    }


def score(picture: Picture, prompt: str, wanted: Sequence[Reference], judges: Judges) -> Score:
    """How well a picture follows its prompt and shows the people wanted; their order does not matter."""
    found = judges.faces.faces(picture)
    similarity = np.stack([person.identity for person in wanted]) @ found.embeddings.T
    pairs = pairing(similarity)
    crops = [judges.crop(picture, found.boxes[face]) for face in pairs.values()]
    whole_and_crops = judges.clip.pictures([picture, *crops])
    dino = judges.dino.pictures(crops) if crops else []
    return Score(
        clip_t=float(whole_and_crops[0] @ judges.clip.texts([prompt])[0]),
        face_sim=identity_reward(similarity),
        dino_i=mean_or_zero([wanted[i].dino @ seen for i, seen in zip(pairs, dino, strict=True)], len(wanted)),
        clip_i=mean_or_zero(
            [wanted[i].clip @ seen for i, seen in zip(pairs, whole_and_crops[1:], strict=True)], len(wanted)
        ),
        hps=float(judges.hps.scores([picture], [prompt])[0]),
        detection_rate=len(pairs) / len(wanted),
        num_faces=len(found.boxes),
    )


def pairing(similarity: Float[np.ndarray, "R F"]) -> dict[int, int]:
    """Which face stands for which reference, each at most once.

    First the pairing behind Face-Sim, which has positive similarities only; then whoever is left over, most similar
    first in total, so that a subject that was found but not recognised still has a crop to compare.
    """
    pairs = dict(match(similarity))
    rows = [i for i in range(similarity.shape[0]) if i not in pairs]
    columns = [j for j in range(similarity.shape[1]) if j not in pairs.values()]
    left, right = linear_sum_assignment(-similarity[np.ix_(rows, columns)])
    return pairs | {rows[i]: columns[j] for i, j in zip(left, right, strict=True)}


def mean_or_zero(cosines: Sequence[float], num_wanted: int) -> float:
    """The mean over all subjects wanted, of which those without a cosine count 0."""
    return float(sum(cosines)) / num_wanted


def summary(scores: Sequence[Score], params: IntervalParams) -> dict[str, Interval]:
    """The mean of every metric over pictures, with its interval.

    Raises:
        ValueError: there are fewer than two pictures.
    """
    rows = [as_row(score) for score in scores]
    return {metric: mean_interval([row[metric] for row in rows], params) for metric in METRICS}


def as_row(score: Score) -> Mapping[str, float]:
    """The scores by name."""
    return asdict(score)
