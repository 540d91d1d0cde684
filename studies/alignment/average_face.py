"""The average-face hack: what each way to match faces pays for images in which a face stands for several people.

Honest images are stage 2's images of the benchmark's prompts, and collages of the people's own portraits. The others
hold one blend of the portraits, the blend twice, or one of the people twice, as collages and as stage 2 draws
them when all of its references are the same. No image is trained on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from mcpipe.bench.intervals import Interval, IntervalParams, mean_interval
from mcpipe.core.params import parse_yaml, read_params
from mcpipe.core.schemas.benchmark import GeneratedImage, PairPrompt, PoolFace
from mcpipe.core.shards import read_shards
from mcpipe.flux.adapters import load_adapter
from mcpipe.flux.backbone import load_generator
from mcpipe.flux.sampler import Requests, generate
from mcpipe.models.faces import InsightFaces
from mcpipe.models.protocols import Picture
from mcpipe.objectives.reward import Matching, identity_reward
from mcpipe.steps.generate import BATCH_SIZE, GenerateParams
from mcpipe.train.rl.params import TrainRLParams

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
"""Grey value of a collage's background, 0-255."""


@dataclass(frozen=True)
class Payment:
    """Identity rewards of images of one kind, one image per pair of the benchmark."""

    rewards: Mapping[str, Float[np.ndarray, " pairs"]]
    """By matching."""
    num_faces: Float[np.ndarray, " pairs"]
    """Detected faces."""
    example: Picture


def average_face(folder: Path) -> dict[str, Payment]:
    """Identity rewards by kind of image; ``folder`` holds the pairs, the adapter and its images of an experiment."""
    data = folder / "data"
    pool = {face.key: face for face in read_shards(data / "pairs" / "faces", PoolFace)}
    pairs = sorted(read_shards(data / "pairs" / "bench", PairPrompt), key=lambda pair: pair.key)
    images = {drawn.key: drawn.image for drawn in read_shards(data / "images" / "train_rl", GeneratedImage)}
    kinds: dict[str, list[Picture]] = {HONEST: [images[pair.key] for pair in pairs]} | drawn(folder, pairs, pool)
    for pair in pairs:
        for kind, image in collages([pool[face].closeup for face in pair.names]).items():
            kinds.setdefault(kind, []).append(image)
    params = read_params(folder / "params.yaml", "train_rl", TrainRLParams)
    recogniser = InsightFaces(model_folder(folder, "faces"), params.min_face_score, params.detection_size)
    people = [np.stack([pool[face].embedding for face in pair.names]) for pair in pairs]
    return {kind: payment(people, kinds[kind], recogniser) for kind in KINDS}


def model_folder(folder: Path, name: str) -> Path:
    """The folder of a frozen model in the checkout, by its key in an experiment's params.yaml."""
    content: Any = parse_yaml((folder / "params.yaml").read_text(encoding="utf-8"))
    return Path(content["models"][name])


def payment(people: Sequence[Float[np.ndarray, "N D"]], images: Sequence[Picture], recogniser: InsightFaces) -> Payment:
    """The rewards of images, each for its own people."""
    cosines = [identity @ recogniser.faces(image).embeddings.T for identity, image in zip(people, images, strict=True)]
    rewards = {matching: np.array([identity_reward(each, matching) for each in cosines]) for matching in MATCHINGS}
    return Payment(rewards, np.array([each.shape[1] for each in cosines], np.float64), images[0])


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


def drawn(folder: Path, pairs: Sequence[PairPrompt], pool: Mapping[str, PoolFace]) -> dict[str, list[Picture]]:
    """What stage 2 draws of every prompt when all of its references are the same, by kind."""
    params = read_params(folder / "params.yaml", "generate", GenerateParams)
    pipeline = load_generator(model_folder(folder, "generator"))
    spec = load_adapter(pipeline, folder / "data" / "models" / "train_rl")
    people = [np.stack([pool[face].reference for face in pair.names]) for pair in pairs]
    same = {
        "drawn_average": [np.stack([p.mean(0).round().astype(np.uint8)] * len(p)) for p in people],
        "drawn_twice": [np.stack([p[0]] * len(p)) for p in people],
    }
    prompts, seeds = [pair.prompt for pair in pairs], [params.seed + i for i in range(len(pairs))]
    requests = {
        kind: Requests(prompts, references, seeds, params.sample, spec.image_size, BATCH_SIZE)
        for kind, references in same.items()
    }
    return {kind: list(generate(pipeline, requests[kind])) for kind in same}


def leads(payments: Mapping[str, Payment], params: IntervalParams) -> dict[str, dict[str, Interval]]:
    """How much more every other kind is paid than stage 2's honest drawing of the same pair; by kind and matching.

    `EXTRA` is the difference of that lead by row maximum and by the paper's matching.
    """
    rises: dict[str, dict[str, Float[np.ndarray, " pairs"]]] = {
        kind: {matching: paid.rewards[matching] - payments[HONEST].rewards[matching] for matching in MATCHINGS}
        for kind, paid in payments.items()
        if kind != HONEST
    }
    for rise in rises.values():
        rise[EXTRA] = rise["row_max"] - rise["hungarian"]
    return {
        kind: {name: mean_interval(values.tolist(), params) for name, values in rise.items()}
        for kind, rise in rises.items()
    }
