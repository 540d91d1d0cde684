"""The average-face hack: what each way to match faces pays for pictures in which a face stands for several people.

Honest pictures are what stage 2 draws of the benchmark's prompts, and collages of the wanted people's own portraits.
The others hold one blend of the portraits, the blend twice, or one wanted person twice, as collages and as stage 2
draws them when every reference it gets is the same. No picture is trained on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from mcpipe.bench.intervals import Interval, IntervalParams, mean_interval
from mcpipe.core.schemas.benchmark import PairPrompt, PoolFace
from mcpipe.core.shards import read_shards
from mcpipe.flux.adapters import load_adapter
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.sampler import generate
from mcpipe.models.faces import InsightFaces
from mcpipe.models.protocols import Picture
from mcpipe.objectives.reward import Matching, identity_reward
from mcpipe.steps.generate import BATCH_SIZE, GenerateParams
from mcpipe.train.rl.params import TrainRLParams
from studies.alignment.arms import Place

HONEST = "drawn"
KINDS = {
    HONEST: "drawn by stage 2",
    "drawn_average": "drawn, every reference the blend",
    "drawn_twice": "drawn, every reference the first",
    "portraits": "collage, both portraits",
    "one_average": "collage, one blend",
    "two_averages": "collage, the blend twice",
    "twice": "collage, the first twice",
}
MATCHINGS: tuple[Matching, ...] = ("hungarian", "contrastive", "row_max")
EXTRA = "row_max - hungarian"
GREY = 200
"""Of a collage's ground."""


@dataclass(frozen=True)
class Paid:
    """The identity reward of pictures of one kind, one per pair of the benchmark."""

    rewards: Mapping[str, Float[np.ndarray, " pairs"]]
    """By matching."""
    num_faces: Float[np.ndarray, " pairs"]
    example: Picture


def average_face(place: Place, pictures: Mapping[str, Picture]) -> dict[str, Paid]:
    """What every kind of picture is paid, by kind; ``pictures`` are those that stage 2 drew, by pair."""
    pool = {record.key: record for record in read_shards(place.pairs / "faces", PoolFace)}
    pairs = sorted(read_shards(place.pairs / "bench", PairPrompt), key=lambda pair: pair.key)
    kinds: dict[str, list[Picture]] = {HONEST: [pictures[pair.key] for pair in pairs]} | drawn(place, pairs, pool)
    for pair in pairs:
        for kind, picture in collages([pool[face].closeup for face in pair.faces]).items():
            kinds.setdefault(kind, []).append(picture)
    params = place.settings("train_rl", TrainRLParams).faces
    recogniser = InsightFaces(place.model("faces"), params.min_score, params.detection_size)
    people = [np.stack([pool[face].embedding for face in pair.faces]) for pair in pairs]
    return {kind: paid(people, kinds[kind], recogniser) for kind in KINDS}


def paid(people: Sequence[Float[np.ndarray, "N D"]], pictures: Sequence[Picture], recogniser: InsightFaces) -> Paid:
    """The rewards of pictures of some people each."""
    found = [wanted @ recogniser.faces(seen).embeddings.T for wanted, seen in zip(people, pictures, strict=True)]
    rewards = {matching: np.array([identity_reward(one, matching) for one in found]) for matching in MATCHINGS}
    return Paid(rewards, np.array([one.shape[1] for one in found], np.float64), pictures[0])


def collages(portraits: Sequence[UInt8[np.ndarray, "S S 3"]]) -> dict[str, Picture]:
    """Portraits side by side, by kind."""
    blend = np.mean(portraits, axis=0).round().astype(np.uint8)
    return {
        "portraits": side_by_side(portraits),
        "one_average": side_by_side([blend]),
        "two_averages": side_by_side([blend] * len(portraits)),
        "twice": side_by_side([portraits[0]] * len(portraits)),
    }


def side_by_side(portraits: Sequence[UInt8[np.ndarray, "S S 3"]]) -> UInt8[np.ndarray, "H W 3"]:
    """On one grey ground, wide enough for two, with a margin of an eighth of a portrait."""
    size = len(portraits[0])
    margin = size // 8
    columns = max(len(portraits), 2)
    ground = np.full((size + 2 * margin, columns * (size + margin) + margin, 3), GREY, np.uint8)
    free = ground.shape[1] - len(portraits) * (size + margin) + margin
    for place, portrait in enumerate(portraits):
        left = free // 2 + place * (size + margin)
        ground[margin : margin + size, left : left + size] = portrait
    return ground


def drawn(place: Place, pairs: Sequence[PairPrompt], pool: Mapping[str, PoolFace]) -> dict[str, list[Picture]]:
    """What stage 2 draws of every prompt when all of its references are the same, by kind."""
    params: GenerateParams = place.settings("generate", GenerateParams)
    pipeline = load_generator(place.model("generator"))
    spec = load_adapter(pipeline, place.adapter)
    people = [np.stack([pool[face].reference for face in pair.faces]) for pair in pairs]
    same = {
        "drawn_average": [np.stack([p.mean(0).round().astype(np.uint8)] * len(p)) for p in people],
        "drawn_twice": [np.stack([p[0]] * len(p)) for p in people],
    }
    prompts, seeds = [pair.prompt for pair in pairs], [params.seed + i for i in range(len(pairs))]
    sizes: dict[str, Any] = {"image_size": spec.image_size, "batch_size": BATCH_SIZE}
    return {
        kind: list(generate(pipeline, prompts, references, seeds, params.sample, **sizes))
        for kind, references in same.items()
    }


def leads(found: Mapping[str, Paid], params: IntervalParams) -> dict[str, dict[str, Interval]]:
    """How much more every other kind is paid than what stage 2 draws honestly, pair by pair; by kind and matching.

    `EXTRA` is by how much that is more by row maximum than by the paper's matching.
    """
    rises: dict[str, dict[str, Float[np.ndarray, " pairs"]]] = {
        kind: {matching: one.rewards[matching] - found[HONEST].rewards[matching] for matching in MATCHINGS}
        for kind, one in found.items()
        if kind != HONEST
    }
    for rise in rises.values():
        rise[EXTRA] = rise["row_max"] - rise["hungarian"]
    return {
        kind: {name: mean_interval(values.tolist(), params) for name, values in rise.items()}
        for kind, rise in rises.items()
    }
