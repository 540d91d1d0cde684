"""The benchmark's scores of one image of people (paper, section 5.1).

Choices where the paper is silent or wrong:

1. A subject without a detected face counts 0 and stays in the denominator.
2. DINO-I uses DINO, the self-supervised encoder; the paper cites a detector of the same name.
3. Located subjects are square face crops, cut like the references.
4. HPS is v2.1, which the published numbers fit.
5. PickScore, which no reward has seen, stands beside HPS where its weights are given; it is no part of "overall".
6. A second recogniser, which no stage was trained with, measures Face-Sim again.
7. Faults of detected people (swapped, copied) are rates over these people; an image without people has none.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from mcpipe.bench.binding import binding
from mcpipe.bench.copying import (
    background,
    background_distance,
    copied,
    is_duplicate,
    own_minus_cross,
    pose_distance,
    same_and_cross,
    swapped,
)
from mcpipe.bench.intervals import Interval, IntervalParams, unit_interval
from mcpipe.bench.landmarks import face_landmarks
from mcpipe.bench.leaks import Phrases, leak_rate
from mcpipe.bench.tables import ALL_METRICS, AVERAGED
from mcpipe.core.rounding import cosines
from mcpipe.core.schemas.benchmark import PoolFace
from mcpipe.models.protocols import FaceAnalyser, Faces, ImageEncoder, ImageTextEncoder, Picture, PreferenceScorer
from mcpipe.objectives.reward import identity_reward, match


@dataclass(frozen=True)
class MetricScorers:
    """The models that score an image."""

    faces: FaceAnalyser
    heldout: FaceAnalyser
    """Face analyser with a recogniser that is not part of any reward."""
    clip: ImageTextEncoder
    dino: ImageEncoder
    hps: PreferenceScorer
    crop: Callable[[Picture, Float[np.ndarray, " 4"]], Picture]
    """Function that crops a detected face from an image, framed like a reference."""
    pick_score: PreferenceScorer | None = None


@dataclass(frozen=True)
class Reference:
    """Features of a person of a prompt, by all scorers; embeddings have unit length."""

    identity: Float[np.ndarray, " D"]
    heldout: Float[np.ndarray, " E"]
    """Embedding by the held-out recogniser; zeros, whose cosine is 0 with anybody, if it detects no face."""
    clip: Float[np.ndarray, " C"]
    dino: Float[np.ndarray, " V"]
    landmarks: Float[np.ndarray, "5 2"]
    """See `mcpipe.bench.landmarks`."""
    background: Float[np.ndarray, "B 3"]
    """See `mcpipe.bench.copying`."""
    phrases: Phrases = ()
    """Phrases about lasting traits (`mcpipe.bench.leaks`); empty where the pool's table has none."""


@dataclass(frozen=True)
class Score:
    """Scores of one image; ``None`` where a metric is undefined for it."""

    clip_t: float
    hps: float
    clip_i: float | None
    dino_i: float | None
    overall: float | None
    """Mean of those of the paper's columns that the suite has."""
    pick_score: float | None = None
    """Preference by PickScore, about 20 with its published weights; ``None`` without them."""
    face_sim: float | None = None
    """Mean cosine of references and matched faces, in [0, 1]."""
    face_sim_heldout: float | None = None
    """`face_sim` by the held-out recogniser."""
    detection_rate: float | None = None
    """Share of the references with an assigned face, in [0, 1]."""
    swap_rate: float | None = None
    """Share of the located faces that resemble another person of the prompt more than their own, in [0, 1]."""
    copy_paste: float | None = None
    """Mean of `copy_pose` and `copy_background`."""
    copy_pose: float | None = None
    copy_background: float | None = None
    own_minus_cross: float | None = None
    """Mean cosine of located faces with their own references less that with the others, in [-2, 2]."""
    duplicate_rate: float | None = None
    """1 if two located faces are nearest to the same reference, else 0."""
    leak_rate: float | None = None
    """Share of the located faces with a trait of the other person, in [0, 1] (`mcpipe.bench.leaks`)."""
    leak_rate_floor: float | None = None
    """The same of the references themselves: the error of the reader."""
    binding: float | None = None
    """See `mcpipe.bench.binding`."""
    face_sim_others: float | None = None
    """`face_sim` of the image drawn from other people's references, same text and noise."""
    face_sim_floor: float | None = None
    """`face_sim` of the image drawn without references, same text and noise."""
    face_sim_swapped: float | None = None
    """`face_sim` of the image drawn from the references in another order, same text and noise."""
    identity_lift: float | None = None
    """`face_sim` less `face_sim_others`: what the references add to the text."""
    num_faces: int = 0
    """Number of detected faces, including those beyond the people of the prompt."""
    same: Sequence[float] = ()
    """Cosines of located faces and their own references."""
    cross: Sequence[float] = ()
    """Cosines of located faces and the other references of the prompt."""


def references(faces: Iterable[PoolFace], scorers: MetricScorers, phrases: Sequence[str] = ()) -> dict[str, Reference]:
    """Features of every face of the pool, by its key.

    ``phrases`` are the columns of the pool's table with phrases about lasting traits.

    Raises:
        ValueError: the table has some of these columns, but not all.
    """
    return {
        face.key: Reference(
            identity=face.embedding,
            heldout=scorers.heldout.faces(face.reference).identity,
            clip=scorers.clip.pictures([face.reference])[0],
            dino=scorers.dino.pictures([face.reference])[0],
            landmarks=face.landmarks,
            background=background(face.reference),
            phrases=_phrases(face, phrases),
        )
        for face in faces
    }


def _phrases(face: PoolFace, columns: Sequence[str]) -> Phrases:
    """The phrases about a person; none if the table has none of the columns."""
    lacking = [name for name in columns if name not in face.attributes]
    if lacking and len(lacking) < len(columns):
        raise ValueError(f"{face.file} has no {lacking[0]} in the table beside the pool; see evaluate.phrases")
    return () if lacking else tuple(str(face.attributes[name] or "") for name in columns)


def score(  # noqa: PLR0913  the attention is optional
    picture: Picture,
    prompt: str,
    subjects: Sequence[str],
    people: Mapping[str, Reference],
    scorers: MetricScorers,
    attention: Float[np.ndarray, "R rows columns"] | None = None,
) -> Score:
    """Scores of an image for its prompt and for its ``subjects`` among all ``people``; their order does not matter.

    ``attention`` holds a map per subject, where the generator recorded them.
    """
    faces, references = scorers.faces.faces(picture), [people[name] for name in subjects]
    similarity = cosines(np.stack([person.identity for person in references]), faces.embeddings)
    heldout = cosines(np.stack([person.heldout for person in references]), scorers.heldout.faces(picture).embeddings)
    pairs = pairing(similarity)
    crops = [scorers.crop(picture, faces.boxes[face]) for face in pairs.values()]
    of_image, *of_crops = scorers.clip.pictures([picture, *crops])
    clip = dict(zip(pairs, of_crops, strict=True))
    dino = dict(zip(pairs, scorers.dino.pictures(crops) if crops else [], strict=True))
    paper = {
        "clip_t": float(of_image @ scorers.clip.texts([prompt])[0]),
        "face_sim": identity_reward(similarity),
        "dino_i": mean_or_zero([references[i].dino @ crop for i, crop in dino.items()], len(subjects)),
        "clip_i": mean_or_zero([references[i].clip @ crop for i, crop in clip.items()], len(subjects)),
        "hps": float(scorers.hps.scores([picture], [prompt])[0]),
    }
    located = {subjects[i]: (face, crop) for (i, face), crop in zip(pairs.items(), crops, strict=True)}
    poses, backgrounds = copies(located, faces, people)
    same, cross = same_and_cross(similarity, pairs)
    described = [person.phrases for person in references]
    return Score(
        **paper,
        overall=mean_of([paper[metric] for metric in AVERAGED]),
        pick_score=preference(scorers.pick_score, picture, prompt),
        face_sim_heldout=identity_reward(heldout),
        detection_rate=len(pairs) / len(subjects),
        swap_rate=mean_of(swapped(similarity, pairs)),
        copy_paste=mean_of([*poses, *backgrounds]),
        copy_pose=mean_of(poses),
        copy_background=mean_of(backgrounds),
        own_minus_cross=own_minus_cross(same, cross),
        duplicate_rate=as_rate(is_duplicate(similarity, pairs)),
        leak_rate=leak_rate(clip, described, scorers.clip),
        leak_rate_floor=leak_rate(dict(enumerate(person.clip for person in references)), described, scorers.clip),
        binding=None if attention is None else binding(attention, located_boxes(pairs, faces), picture.shape[:2]),
        num_faces=len(faces.boxes),
        same=same,
        cross=cross,
    )


def preference(scorer: PreferenceScorer | None, picture: Picture, prompt: str) -> float | None:
    """Score of an image by an optional scorer."""
    return None if scorer is None else float(scorer.scores([picture], [prompt])[0])


def located_boxes(pairs: Mapping[int, int], faces: Faces) -> dict[int, Float[np.ndarray, " 4"]]:
    """The box of each located face, by its reference."""
    return {reference: faces.boxes[face] for reference, face in pairs.items()}


def missing() -> Score:
    """The score of an image that is not there or cannot be read: 0 wherever a higher score is better."""
    return Score(
        clip_t=0, hps=0, clip_i=0, dino_i=0, overall=0, face_sim=0, face_sim_heldout=0, detection_rate=0
    )  # fmt: skip


def pairing(similarity: Float[np.ndarray, "R F"]) -> dict[int, int]:
    """A one-to-one assignment of references to faces.

    It begins with the assignment of Face-Sim, which has positive similarities only, and assigns the rest with the
    largest sum of similarities, so that a subject whose face is detected but not recognised still has a crop to
    compare.
    """
    pairs = dict(match(similarity))
    rows = [i for i in range(similarity.shape[0]) if i not in pairs]
    columns = [j for j in range(similarity.shape[1]) if j not in pairs.values()]
    left, right = linear_sum_assignment(-similarity[np.ix_(rows, columns)])
    return pairs | {rows[i]: columns[j] for i, j in zip(left, right, strict=True)}


def copies(
    located: Mapping[str, tuple[int, Picture]], faces: Faces, people: Mapping[str, Reference]
) -> tuple[list[float | None], list[float | None]]:
    """Copy scores of pose and background of each located person (see `mcpipe.bench.copying`).

    ``located`` holds the index of the face assigned to a person and its crop, by the person's name.
    """
    poses, backgrounds = [], []
    for name, (face, crop) in located.items():
        held, behind = face_landmarks(faces.landmarks[face], faces.boxes[face]), background(crop)
        pose = {other: pose_distance(held, person.landmarks) for other, person in people.items()}
        scene = {other: background_distance(behind, person.background) for other, person in people.items()}
        poses.append(copied(pose.pop(name), list(pose.values())))
        backgrounds.append(copied(scene.pop(name), list(scene.values())))
    return poses, backgrounds


def mean_or_zero(cosines: Sequence[float], num_subjects: int) -> float:
    """The mean over all subjects of the prompt; a subject without a cosine counts 0."""
    return float(sum(cosines)) / num_subjects


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are not ``None``; ``None`` if there are none."""
    numbers = [value for value in values if value is not None]
    return float(np.mean(numbers)) if numbers else None


def as_rate(value: bool | None) -> float | None:
    """A truth value as 0 or 1."""
    return None if value is None else float(value)


def summary(
    keys: Sequence[str], units: Mapping[str, Sequence[str]], scores: Sequence[Score], params: IntervalParams
) -> dict[str, Interval]:
    """The mean of every metric over prompts, with its interval; metrics with fewer than two values are left out.

    ``keys`` names the prompt of each image, and ``units`` the references of each prompt, over which intervals are
    taken: prompts that share a person are not independent. Several images of one prompt count as their mean.

    Raises:
        ValueError: there are fewer than two prompts, or all have the same reference.
    """
    if len(set(keys)) < 2:
        raise ValueError(f"intervals need at least two prompts, got {len(set(keys))}")
    means = {}
    for metric in (field.name for field in fields(scores[0]) if field.name in ALL_METRICS):
        by_prompt: defaultdict[str, list[float | None]] = defaultdict(list)
        for key, image_score in zip(keys, scores, strict=True):
            by_prompt[key].append(as_row(image_score)[metric])
        values = {key: mean for key, values in by_prompt.items() if (mean := mean_of(values)) is not None}
        if len(values) > 1:
            means[metric] = unit_interval([*values.values()], [units[key] or [key] for key in values], params)
    return means


def as_row(score: Score) -> dict[str, Any]:
    """The scores by name."""
    return asdict(score)
