"""Rewards of PSR on objects (arXiv:2512.01236): each compared with its own reference, both located by its phrase.

A reference is the object on white; its phrase is looked for there, too, as PSR does. One whose phrase is not located
counts 0 in every image.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcpipe.core.records import JSON
from mcpipe.core.schemas.benchmark import PairPrompt, PoolThing
from mcpipe.core.shards import read_shards
from mcpipe.curate.objects import POOLS
from mcpipe.flux.adapters import AdapterSpec
from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.grounders import load_grounder
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.dino import Dino
from mcpipe.models.scorers.judge import Judge
from mcpipe.models.scorers.preferences import load_preference
from mcpipe.train.rl.rewards import PairwiseScorer, Prompt, Scorers
from mcpipe.train.rl.stage import ReadPrompts, RLTraining


def scorers_of_pairs(training: RLTraining) -> tuple[Scorers, ReadPrompts]:
    """The rewards of PSR: ``dinov2`` rewards, ``dino`` watches; the judge is loaded only if it is paid.

    ``preference`` is a folder of HPSv3 or of HPS v2.1.

    Raises:
        FileNotFoundError: a checkpoint is missing.
        ValueError: a checkpoint is damaged.
    """
    models, params = training.models, training.params
    grounder = load_grounder(models["grounder"], params.psr.box_threshold)
    rewarding, watching = (PairwiseScorer(grounder, Dino(models[name])) for name in ("dinov2", "dino"))
    psr, judge = params.psr, None
    if params.rewards.semantic:
        judge = Judge(Qwen2_5VL(models["judge"]), psr.temperature, psr.max_tokens, psr.attempts, psr.seed)
    clip, preference = Clip(models["reward_clip"]), load_preference(models["preference"])
    return Scorers(rewarding, clip, preference, watching, judge), PairwisePrompts(training.pairs, rewarding, watching)


@dataclass(frozen=True)
class PairwisePrompts:
    """Reads the prompts of stage 3 with the references of their objects."""

    prompts: Path
    rewarding: PairwiseScorer
    watching: PairwiseScorer

    def __call__(self, spec: AdapterSpec) -> tuple[list[Prompt], dict[str, JSON]]:
        """The prompts for an adapter, and the objects whose phrase is not located in their own reference.

        Raises:
            ValueError: there is no prompt, or the references have another size than the adapter was trained for.
        """
        things = {thing.key: thing for thing in read_shards(self.prompts / POOLS["rl"], PoolThing)}
        if not things:
            raise ValueError(f"no prompts in {self.prompts}; see the report of the stage prompts")
        for thing in things.values():
            if thing.reference.shape[0] != spec.reference_size:
                raise ValueError(
                    f"the references of {self.prompts} measure {thing.reference.shape[0]} px, but the adapter was "
                    f"trained with {spec.reference_size} px; train it again, or set samples.reference_size to that"
                )
        own, watched = (
            {key: scorer.features(thing.reference, [thing.phrase])[0] for key, thing in things.items()}
            for scorer in (self.rewarding, self.watching)
        )
        read = [
            Prompt(
                stored.key,
                stored.prompt,
                tuple(things[name].reference for name in stored.names),
                embeddings=np.stack([own[name] for name in stored.names]),
                heldout_embeddings=np.stack([watched[name] for name in stored.names]),
                names=tuple(things[name].phrase for name in stored.names),
            )
            for stored in read_shards(self.prompts / "rl", PairPrompt)
        ]
        return read, {"references_not_located": [key for key, features in own.items() if not features.any()]}
