"""Scores of images in public suites, most of whose subjects are not people.

As in DreamBench, the whole image is compared with the reference of each subject, and the score is the mean over
subjects; subjects are not located. People also count for Face-Sim, detected and matched as in `mcpipe.bench.metrics`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from mcpipe.bench.copying import same_and_cross, swapped
from mcpipe.bench.metrics import Score, mean_of, pairing, preference
from mcpipe.bench.suites import Subject, Task
from mcpipe.core.rounding import cosines
from mcpipe.models.protocols import FaceAnalyser, ImageEncoder, ImageTextEncoder, Picture, PreferenceScorer
from mcpipe.objectives.reward import identity_reward


@dataclass(frozen=True)
class Features:
    """Features of a subject's reference by all scorers, of unit length, or means of such (`mean_features`)."""

    clip: Float[np.ndarray, " C"]
    dino: Float[np.ndarray, " V"]
    identity: Float[np.ndarray, " D"] | None
    """Embedding of a person; zeros, whose cosine is 0 with anybody, if no face is detected; ``None`` for other
    subjects."""
    heldout: Float[np.ndarray, " E"] | None
    """The embedding by the held-out recogniser."""


def mean_features(images: Sequence[Features]) -> Features:
    """Features of a thing that several images show.

    They are means of unit vectors, whose product with a unit vector is the mean of the cosines.
    """
    clip, dino = (np.mean([vars(image)[name] for image in images], axis=0) for name in ("clip", "dino"))
    return Features(clip, dino, None, None)


@dataclass(frozen=True)
class PublicScorers:
    """The models that score whole images; recognisers only for suites with people."""

    clip: ImageTextEncoder
    dino: ImageEncoder
    hps: PreferenceScorer
    faces: FaceAnalyser | None
    heldout: FaceAnalyser | None
    pick_score: PreferenceScorer | None = None


def embed_reference(subject: Subject, picture: Picture, scorers: PublicScorers) -> Features:
    """Features of a subject's reference."""

    def identity(analyser: FaceAnalyser | None) -> Float[np.ndarray, " D"] | None:
        if analyser is None or not subject.is_person:
            return None
        embeddings = analyser.faces(picture).embeddings
        return embeddings[0] if len(embeddings) else np.zeros(embeddings.shape[1], np.float32)

    return Features(
        scorers.clip.pictures([picture])[0],
        scorers.dino.pictures([picture])[0],
        identity(scorers.faces),
        identity(scorers.heldout),
    )


def score_image(picture: Picture, task: Task, features: Mapping[str, Features], scorers: PublicScorers) -> Score:
    """Scores of an image; metrics that need a reference missing from ``features`` (by path) are ``None``."""
    seen = scorers.clip.pictures([picture])[0]
    clip_t = float(seen @ scorers.clip.texts([task.prompt])[0])
    hps = float(scorers.hps.scores([picture], [task.prompt])[0])
    picked = preference(scorers.pick_score, picture, task.prompt)
    references = [features[subject.picture] for subject in task.subjects if subject.picture in features]
    if len(references) < len(task.subjects):
        return Score(clip_t=clip_t, hps=hps, clip_i=None, dino_i=None, overall=None, pick_score=picked)
    clip_i = float(np.mean([reference.clip @ seen for reference in references]))
    dino_features = scorers.dino.pictures([picture])[0]
    dino_i = float(np.mean([reference.dino @ dino_features for reference in references]))
    image_score = Score(clip_t, hps, clip_i, dino_i, float(np.mean([clip_t, hps, clip_i, dino_i])), picked)
    people = [reference.identity for reference in references if reference.identity is not None]
    heldout = [reference.heldout for reference in references if reference.heldout is not None]
    if scorers.faces is None or scorers.heldout is None or not people:
        return image_score
    return _with_people(image_score, picture, people, heldout, (scorers.faces, scorers.heldout))


def missing_image(task: Task, features: Mapping[str, Features]) -> Score:
    """The score of a missing image: 0 for every metric that the image would have."""
    if any(subject.picture not in features for subject in task.subjects):
        return Score(clip_t=0, hps=0, clip_i=None, dino_i=None, overall=None)
    if not any(features[subject.picture].identity is not None for subject in task.subjects):
        return Score(clip_t=0, hps=0, clip_i=0, dino_i=0, overall=0)
    return Score(0, 0, 0, 0, 0, face_sim=0, face_sim_heldout=0, detection_rate=0)


def _with_people(
    image_score: Score,
    picture: Picture,
    people: Sequence[Float[np.ndarray, " D"]],
    heldout: Sequence[Float[np.ndarray, " E"]],
    analysers: tuple[FaceAnalyser, FaceAnalyser],
) -> Score:
    """A score with the metrics of the people in an image."""
    faces = analysers[0].faces(picture)
    similarity = cosines(np.stack(people), faces.embeddings)
    pairs = pairing(similarity)
    same, cross = same_and_cross(similarity, pairs)
    return replace(
        image_score,
        face_sim=identity_reward(similarity),
        face_sim_heldout=identity_reward(cosines(np.stack(heldout), analysers[1].faces(picture).embeddings)),
        detection_rate=len(pairs) / len(people),
        swap_rate=mean_of(swapped(similarity, pairs)),
        num_faces=len(faces.boxes),
        same=same,
        cross=cross,
    )
