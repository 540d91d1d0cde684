"""Which drawn objects are copies of their references; how close is too close is measured on real targets."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from mcpipe.bench.controls import CONTROLS, TARGETS
from mcpipe.bench.object_copies import copy_threshold, cutout_distance
from mcpipe.core.params import Params, TakenFrom
from mcpipe.core.report import Report
from mcpipe.core.schemas.benchmark import PoolThing, RealTarget
from mcpipe.core.shards import read_shards, whole_folder
from mcpipe.curate.objects import POOLS
from mcpipe.models.protocols import Picture
from mcpipe.steps.evaluate import answers
from mcpipe.steps.object_finder import MinScore, ObjectFinder, ObjectModels


class ObjectCopiesParams(Params):
    """What counts as a copy."""

    rare: float = Field(gt=0, lt=1)
    """Share of the objects of real targets that are nearer to their references than a copy has to be."""
    min_score: Annotated[MinScore, TakenFrom("grounding.min_score")]
    """Certainty from which a box counts; that of samples and scores."""


def write_copies(prompts: Path, images: Path, models: ObjectModels, copying: Path, params: ObjectCopiesParams) -> None:
    """Write ``copies.json``: the threshold, and for every image the share of its located objects that are copies.

    Raises:
        FileNotFoundError: images or a model are missing.
        ValueError: prompts and images do not fit, or no object of a real target is located.
    """
    pool = {thing.key: thing for thing in read_shards(prompts / POOLS["bench"], PoolThing)}
    answered = answers(prompts / "bench", images)
    if not pool:
        raise ValueError(f"{prompts / POOLS['bench']} is empty; run prompts again")
    finder = models.finder(params.min_score, next(iter(pool.values())).reference.shape[0])
    phrases = {name: thing.phrase for name, thing in pool.items()}
    real = list(real_distances(images / CONTROLS / TARGETS, phrases, finder))
    threshold, report = copy_threshold(real, params.rare), Report("copying", ("sam2", "transformers"))
    shares: dict[str, float | None] = {}
    for prompt, drawn in answered:
        things = [pool[name] for name in prompt.names]
        references = [(thing.phrase, thing.reference) for thing in things]
        near = [distance < threshold for distance in distances(drawn.image, references, finder)]
        shares[prompt.key] = float(np.mean(near)) if near else None
        report.keep(prompt.key)
    with whole_folder(copying) as folder:
        content = {"threshold": round(threshold, 6), "num_real": len(real), "copies": shares}
        (folder / "copies.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        report.write(folder)


def distances(image: Picture, references: Iterable[tuple[str, Picture]], finder: ObjectFinder) -> Iterator[float]:
    """Distance of every located object to its reference, given as phrase and image."""
    for phrase, reference in references:
        crop = finder.crop(image, phrase)
        if crop is not None:
            yield cutout_distance(crop, reference)


def real_distances(targets: Path, phrases: dict[str, str], finder: ObjectFinder) -> Iterator[float]:
    """Distances of the objects of real targets to their own references; targets of unknown objects are left out."""
    for target in read_shards(targets, RealTarget):
        if all(name in phrases for name in target.names):
            references = zip([phrases[name] for name in target.names], target.references, strict=True)
            yield from distances(target.image, references, finder)
