"""Scores of one arm's images of objects, per image and as means with intervals."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from mcpipe.bench.controls import CONTROLS, TARGETS
from mcpipe.bench.object_columns import POLICY, SUITE
from mcpipe.bench.objects import (
    ObjectScorers,
    beside_controls,
    object_ceiling,
    object_controls,
    score_objects,
    thing_references,
)
from mcpipe.core.progress import track
from mcpipe.core.report import Report
from mcpipe.core.schemas.benchmark import PoolThing
from mcpipe.core.shards import read_shards
from mcpipe.core.texts import cut_facts, recorded_cuts
from mcpipe.curate.objects import POOLS
from mcpipe.models.scorers.clip import Clip
from mcpipe.models.scorers.dino import Dino
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.steps.evaluate import (
    SCORED,
    ObjectScoreParams,
    ScoredImage,
    answers,
    load_pick_score,
    protocol_of,
    write_results,
)
from mcpipe.steps.object_finder import ObjectModels

PACKAGES = ("transformers", "open_clip_torch", "sam2")
"""Those whose version a score depends on."""


def write_object_scores(  # noqa: PLR0913  one argument per input
    prompts: Path, images: Path, finders: ObjectModels, models: Mapping[str, Path], results: Path,
    params: ObjectScoreParams,
) -> None:  # fmt: skip
    """Write ``metrics.json``, its ``headline.json``, a row per image in ``rows.parquet``, and the report.

    ``models`` holds the paths of clip, dino and hps by name.

    Raises:
        ValueError: a benchmark prompt has no image or an image no prompt, or nothing is in the pool.
    """
    pool = {thing.key: thing for thing in read_shards(prompts / POOLS["bench"], PoolThing)}
    if not pool:
        raise ValueError(f"{prompts / POOLS['bench']} is empty; run prompts again")
    answered = answers(prompts / "bench", images)
    finder = finders.finder(params.min_score, next(iter(pool.values())).reference.shape[0])
    clip, dino, hps = Clip(models["clip"]), Dino(models["dino"]), HpsV2_1(models["hps"])
    scorers = ObjectScorers(finder.crop, clip, dino, hps, load_pick_score(params))
    things = thing_references(pool.values(), scorers)
    report, scored = Report("score", PACKAGES), []
    controls = object_controls([prompt for prompt, _ in answered], images / CONTROLS, things, scorers)
    with recorded_cuts() as cut:
        for prompt, drawn in track(answered, len(answered), f"score {images.name}"):
            points = score_objects(drawn.image, prompt.prompt, [things[name] for name in prompt.names], scorers)
            points = beside_controls(points, controls[prompt.key])
            scored.append(ScoredImage(prompt.key, prompt.prompt, prompt.key, SCORED, points, prompt.names))
            report.keep(prompt.key)
    report.facts = {"suite": SUITE, "policy": POLICY, "min_score": params.min_score, **cut_facts(cut)}
    phrases = {name: thing.phrase for name, thing in pool.items()}
    ceiling = object_ceiling(images / CONTROLS / TARGETS, phrases, scorers, params.interval)
    contents = {prompt.key: [prompt.prompt, *prompt.names] for prompt, _ in answered}
    digests = {name: sha256(thing.reference.tobytes()).hexdigest() for name, thing in pool.items()}
    places = {"grounder": finders.grounder, "segmenter": finders.segmenter, **models}
    protocol = protocol_of(contents, digests, places, params)
    write_results(results, scored, report, params.interval, protocol, ceiling)
