"""Rewards of objects in stage 3 (paper, section 4.4): each is located by its phrase, compared in DINOv2's space."""

from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated

import numpy as np

from mcpipe.core.params import TakenFrom
from mcpipe.core.records import JSON
from mcpipe.core.schemas.benchmark import PairPrompt, PoolThing
from mcpipe.core.shards import read_shards
from mcpipe.curate.objects import POOLS
from mcpipe.flux.adapters import AdapterSpec
from mcpipe.models.protocols import ImageEncoder, Picture
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.dino import Dino
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.steps.object_finder import MinScore, ObjectFinder, ObjectModels
from mcpipe.train.rl.params import TrainRLParams
from mcpipe.train.rl.rewards import ObjectScorer, Prompt, Scorers
from mcpipe.train.rl.stage import ReadPrompts, RLTraining

NUM_REMEMBERED = 256
"""Searches whose results are kept: those of a group's images."""


class ObjectRLParams(TrainRLParams):
    """Settings of training stage 3 on objects."""

    min_score: Annotated[MinScore, TakenFrom("grounding.min_score")]
    """Certainty from which a box counts; that of samples and scores."""


class RememberingDetector:
    """Objects of recent images, which the rewarding and the watching scorer look for one after the other."""

    def __init__(self, finder: ObjectFinder) -> None:
        self._finder = finder
        self._cached = lru_cache(maxsize=NUM_REMEMBERED)(self._look)

    def crops(self, picture: Picture, phrase: str) -> tuple[Picture, ...]:
        """A square crop of every object that a phrase describes, white outside its mask."""
        return self._cached(picture.tobytes(), picture.shape, phrase)

    def _look(self, content: bytes, shape: tuple[int, ...], phrase: str) -> tuple[Picture, ...]:
        return tuple(self._finder.crops(np.frombuffer(content, np.uint8).reshape(shape), phrase))


def scorers_of_objects(training: RLTraining) -> tuple[Scorers, ReadPrompts]:
    """The rewards of objects: ``dinov2`` rewards, ``dino`` watches.

    Raises:
        FileNotFoundError: a checkpoint is missing.
        ValueError: a checkpoint is damaged, or there is no prompt.
    """
    models, params = training.models, training.params
    assert isinstance(params, ObjectRLParams), "the stage's own settings"
    pool = {thing.key: thing for thing in read_shards(training.pairs / POOLS["rl"], PoolThing)}
    if not pool:
        raise ValueError(f"no prompts in {training.pairs}; see the report of the stage prompts")
    size = next(iter(pool.values())).reference.shape[0]
    detector = RememberingDetector(ObjectModels(models["grounder"], models["segmenter"]).finder(params.min_score, size))
    rewarding, watching = Dino(models["dinov2"]), Dino(models["dino"])
    scorers = Scorers(
        ObjectScorer(detector, rewarding), Clip(models["reward_clip"]), HpsV2_1(models["reward_hps"]),
        ObjectScorer(detector, watching),
    )  # fmt: skip
    return scorers, partial(read_object_prompts, training.pairs, encoders=(rewarding, watching))


def read_object_prompts(
    prompts: Path, spec: AdapterSpec, encoders: tuple[ImageEncoder, ImageEncoder]
) -> tuple[list[Prompt], dict[str, JSON]]:
    """The prompts of stage 3 with the references of their objects, embedded by both encoders; no facts.

    Raises:
        ValueError: the references have another size than the adapter was trained for.
    """
    things = {thing.key: thing for thing in read_shards(prompts / POOLS["rl"], PoolThing)}
    for thing in things.values():
        if thing.reference.shape[:2] != (spec.reference_size, spec.reference_size):
            raise ValueError(
                f"the references of {prompts} measure {thing.reference.shape[1]} px, but the adapter was trained with "
                f"{spec.reference_size} px; train it again, or set samples.reference_size to that"
            )
    rewarding, watching = (
        {key: encoder.pictures([thing.reference])[0] for key, thing in things.items()} for encoder in encoders
    )
    read = [
        Prompt(
            stored.key,
            stored.prompt,
            tuple(things[name].reference for name in stored.names),
            embeddings=np.stack([rewarding[name] for name in stored.names]),
            heldout_embeddings=np.stack([watching[name] for name in stored.names]),
            names=tuple(things[name].phrase for name in stored.names),
        )
        for stored in read_shards(prompts / "rl", PairPrompt)
    ]
    return read, {}
