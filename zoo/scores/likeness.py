"""Scores of what compares images: CLIP with sentences, DINO and DINOv2 with each other, HPS by preference."""

import numpy as np

from mcpipe.models.protocols import PreferenceScorer
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.dino import Dino
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.models.scorers.hpsv3 import HpsV3
from zoo.build.forms import PREFIX, captions_by_form
from zoo.build.hps import WAYS, spoil
from zoo.build.pictures import Pictures
from zoo.build.things import ThingPictures
from zoo.build.training import batches
from zoo.scores.draw import GENERATED, Job, stream
from zoo.scores.figures import Figure
from zoo.scores.pictures import drawn_pictures
from zoo.scores.things import drawn_things

AMONG_SCENES = 64
AMONG_PEOPLE = 50
DRAWS = 50
CLOSE_SHARE = 0.5
"""Share of close shots among the scenes with captions; the pipeline's own clips are close shots."""

TOGETHER = 32
SPOILED_LEVELS = (0.3, 1.0)
"""How badly an image is spoiled, as in the figures of the model card."""


def measure_clip(job: Job) -> list[Figure]:
    """Retrieval by the metric's CLIP."""
    return retrieval(Clip(job.zoo / "clip"), job.seed)


def measure_clip_reward(job: Job) -> list[Figure]:
    """Retrieval by the CLIP of the text reward."""
    return retrieval(Clip(job.zoo / "clip_reward"), job.seed)


def retrieval(clip: Clip, seed: int) -> list[Figure]:
    """Retrieval of captions of both forms, and of images among others."""
    pictures = drawn_pictures(seed, CLOSE_SHARE)
    images = list(pictures.small(GENERATED))
    parts = list(batches(len(images), TOGETHER))
    seen = np.concatenate([clip.pictures(images[part]) for part in parts])
    rng, figures = stream(seed, "choices", 1), []
    rows = [rng.permutation(len(images))[:AMONG_SCENES] for _ in range(DRAWS)]
    for form, captions in captions_by_form(pictures).items():
        cosines = seen @ np.concatenate([clip.texts(captions[part]) for part in parts]).T
        cosine_blocks = [cosines[np.ix_(row, row)] for row in rows]
        for given, axis in (("picture", 1), ("text", 0)):
            hits = [(part.argmax(axis=axis) == np.arange(AMONG_SCENES)).mean() for part in cosine_blocks]
            name = f"{PREFIX[form]}recall_at_1_by_{given}"
            figures.append(Figure(name, float(np.mean(hits)), len(images), "pictures", 0.9))
    return figures


def measure_dino(job: Job) -> list[Figure]:
    """DINO's nearest neighbours."""
    return nearest_neighbours(Dino(job.zoo / "dino"), job.seed)


def measure_dinov2(job: Job) -> list[Figure]:
    """DINOv2's nearest neighbours."""
    return nearest_neighbours(Dino(job.zoo / "dinov2"), job.seed)


def nearest_neighbours(dino: Dino, seed: int) -> list[Figure]:
    """Share of crops whose nearest neighbour, among one crop of each of 50 people or things, shows the same one."""
    people, things = drawn_pictures(seed), drawn_things(seed)
    galleries = {
        "nearest_is_same": (people.gallery, people.gallery_identities, 2),
        "things_nearest_is_same": (things.gallery, things.gallery_things, 4),
    }
    figures = []
    for name, (crops, who, draws) in galleries.items():
        units = np.concatenate([dino.pictures(list(crops[part])) for part in batches(len(crops), TOGETHER)])
        rng = stream(seed, "choices", draws)
        hit_rates = [_hit_rate(units, who, rng) for _ in range(DRAWS)]
        figures.append(Figure(name, float(np.mean(hit_rates)), len(crops), "crops", 0.8))
    return figures


def _hit_rate(units: np.ndarray, who: np.ndarray, rng: np.random.Generator) -> float:
    people = rng.permutation(np.unique(who))[:AMONG_PEOPLE]
    queries, stored = np.array([rng.permutation(np.flatnonzero(who == person))[:2] for person in people]).T
    return float(((units[queries] @ units[stored].T).argmax(axis=1) == np.arange(len(people))).mean())


def measure_hps(job: Job) -> list[Figure]:
    """Preferences of the metric's HPS."""
    return preferences(HpsV2_1(job.zoo / "hps"), job.seed)


def measure_hps_reward(job: Job) -> list[Figure]:
    """Preferences of the HPS of the reward."""
    return preferences(HpsV2_1(job.zoo / "hps_reward"), job.seed)


def measure_hpsv3(job: Job) -> list[Figure]:
    """Preferences of the HPSv3 of PSR's reward."""
    return preferences(HpsV3(job.zoo / "hpsv3"), job.seed)


def preferences(hps: PreferenceScorer, seed: int) -> list[Figure]:
    """Preferences on scenes of people, which the models learned from, and of things, which they did not."""
    people = preferences_on(hps, drawn_pictures(seed, CLOSE_SHARE), stream(seed, "choices", 3))
    things = preferences_on(hps, drawn_things(seed), stream(seed, "choices", 5))
    return [
        *(Figure(name, share, count, "pairs", 0.9) for name, (share, count) in people.items()),
        *(Figure(f"things_{name}", share, count, "pairs") for name, (share, count) in things.items()),
    ]


def preferences_on(
    hps: PreferenceScorer, pictures: Pictures | ThingPictures, rng: np.random.Generator
) -> dict[str, tuple[float, int]]:
    """Preference of clean over spoiled images, and of the right image over another scene's, by captions' form.

    Each is a share and the number of pairs.
    """
    clean, figures = list(pictures.small(GENERATED)), {}
    others = clean[2:] + clean[:2]
    spoiled = [
        spoil(image, other, float(rng.uniform(*SPOILED_LEVELS)), rng.choice(len(WAYS), 2, replace=False).tolist(), rng)
        for image, other in zip(clean, others, strict=True)
    ]
    for form, captions in captions_by_form(pictures).items():
        best, worse, wrong = (
            np.concatenate([hps.scores(images[part], captions[part]) for part in batches(len(captions), TOGETHER)])
            for images in (clean, spoiled, clean[1:] + clean[:1])
        )
        for name, lesser in (("prefers_clean", worse), ("prefers_matching", wrong)):
            figures[f"{PREFIX[form]}{name}"] = float((best > lesser).mean()), len(captions)
    return figures
