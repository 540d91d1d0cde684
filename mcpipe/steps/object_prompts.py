"""Prompts of the object benchmark and of stage 3 from samples of objects, and the references that they name."""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from pydantic import Field

from mcpipe.core.params import Params, RecordsPerShard
from mcpipe.core.report import Report
from mcpipe.core.schemas.benchmark import PairPrompt, PoolThing
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.shards import read_shards, whole_folder, write_shards
from mcpipe.curate.objects import POOLS, phrases_of


class ObjectPromptsParams(Params):
    """Which rows are prompts."""

    num_rl: int = Field(ge=1)
    """Prompts for stage 3, at most; drawn from the training samples."""
    seed: int
    """Seed of the draw."""
    min_objects: int = Field(ge=1)
    """Least number of objects in a prompt."""
    records_per_shard: RecordsPerShard


def write_object_prompts(
    samples: Path, prompts: Path, params: ObjectPromptsParams, of_training: Path | None = None
) -> None:
    """Write a prompt for every held-out sample, and for some of the others, with the references of their objects.

    The others are those of ``of_training``, if it is given.

    Raises:
        ValueError: no sample is held out, or none is left for stage 3.
    """
    report = Report("prompts")
    training = samples if of_training is None else of_training
    drawn = rl_keys(training, params)
    with whole_folder(prompts) as folder:
        for name, split, source in (("bench", "val", samples), ("rl", "train", training)):
            chosen = (
                sample
                for sample in read_shards(source, Sample)
                if is_prompt(sample, split, params) and (split == "val" or sample.key in drawn)
            )
            number, things = write_set(chosen, folder / name, folder / POOLS[name], params)
            if not number:
                raise ValueError(f"{source} has no sample for {name}; see objects.num_held_out and prompts.min_objects")
            report.facts |= {name: number, POOLS[name]: things}
        report.write(folder)


def write_set(samples: Iterable[Sample], prompts: Path, pool: Path, params: ObjectPromptsParams) -> tuple[int, int]:
    """Write the prompts of some samples and their objects, each once; returns the numbers of both."""
    things: dict[str, PoolThing] = {}

    def prompt_of(sample: Sample) -> PairPrompt:
        for name, phrase, reference in zip(sample.names, phrases_of(sample), sample.references, strict=True):
            things.setdefault(name, PoolThing(key=name, phrase=phrase, reference=reference))
        return PairPrompt(key=sample.key, prompt=sample.caption, names=sample.names)

    number = write_shards(map(prompt_of, samples), prompts, params.records_per_shard)
    return number, write_shards([things[name] for name in sorted(things)], pool, params.records_per_shard)


def rl_keys(samples: Path, params: ObjectPromptsParams) -> set[str]:
    """Keys of the training samples that are drawn for stage 3."""
    keys = [sample.key for sample in read_shards(samples, Sample) if is_prompt(sample, "train", params)]
    return set(sorted(keys, key=lambda key: sha256(f"{params.seed}\n{key}".encode()).digest())[: params.num_rl])


def is_prompt(sample: Sample, split: str, params: ObjectPromptsParams) -> bool:
    """Whether a sample of a part of the split has enough objects for a prompt."""
    return sample.split == split and len(sample.names) >= params.min_objects
