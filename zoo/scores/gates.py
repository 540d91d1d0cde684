"""Conditions of the evidence: ``python -m zoo.scores.gates --seed N``; the exit status is 1 if any fails.

A study of references means something only in a world in which identity can be seen, is not in the words, and can be
confused. Each gate is one of these conditions, measured on people whom nobody was trained on:

    ceiling         faces survive the autoencoder
    real_alike      true images of look-alikes are distinguished
    floor           words alone draw nobody in particular
    planted_leaks   the reader of leaks finds planted ones, and few others
    oracle          attention that is given the true layout raises own minus cross
    power           a change as large as the oracle's could be seen with so many pairs
    leaks           without the paper's regularisation, look-alikes leak into each other
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import norm

from mcpipe.bench.copying import own_minus_cross, same_and_cross
from mcpipe.bench.leaks import has_leak, leak_rate
from mcpipe.bench.metrics import pairing
from mcpipe.core.offline import stay_offline
from mcpipe.core.params import read_params
from mcpipe.core.progress import track
from mcpipe.curate.samples import face_crop
from mcpipe.flux.backbone import FluxPipeline, load_generator
from mcpipe.flux.encoders import decode_latents
from mcpipe.flux.sampler import Requests, SampleParams, batches, latents
from mcpipe.models.faces import InsightFaces
from mcpipe.models.scorers.clip import Clip
from mcpipe.objectives.reward import identity_reward
from mcpipe.steps.generate import GenerateParams
from zoo.scores.draw import GENERATED
from zoo.scores.faces import load
from zoo.scores.generator import SETTINGS, reconstruction
from zoo.scores.references import REFERENCE_PX, Task, tasks

NUM_PAIRS = 96
"""Pairs of strangers and of look-alikes, each."""

BATCH = 12
RESAMPLES = 2000
logger = logging.getLogger("zoo")


@dataclass(frozen=True)
class Gate:
    """A condition with its measured value."""

    name: str
    meaning: str
    value: float
    bar: float
    below: bool = False
    """Whether the value must stay below the bar instead."""

    @property
    def passed(self) -> bool:
        """Whether the condition holds; an undefined value fails."""
        return bool(self.value <= self.bar if self.below else self.value >= self.bar)


@dataclass(frozen=True)
class Scorers:
    """The models that score drawn faces."""

    faces: InsightFaces
    clip: Clip

    def separation(self, task: Task, image: np.ndarray) -> float:
        """Own minus cross of an image; 0 if no face is located."""
        similarity = task.identities @ self.faces.faces(image).embeddings.T
        return own_minus_cross(*same_and_cross(similarity, pairing(similarity))) or 0.0

    def leaks(self, task: Task, image: np.ndarray) -> float | None:
        """Leak rate of an image."""
        located = self.faces.faces(image)
        pairs = pairing(task.identities @ located.embeddings.T)
        crops = [face_crop(image, located.boxes[face], REFERENCE_PX) for face in pairs.values()]
        embeddings = self.clip.pictures(crops) if crops else []
        return leak_rate(dict(zip(pairs, embeddings, strict=True)), task.phrases, self.clip)


def main(arguments: Sequence[str]) -> int:
    """Measure and print all gates; returns the exit status."""
    options = read_options(arguments, "gates", "Conditions of the evidence.")
    measured = gates(options.zoo, options.seed)
    Console(width=120).print(gate_table(measured, options.seed))
    return int(not all(gate.passed for gate in measured))


def read_options(arguments: Sequence[str], name: str, description: str) -> argparse.Namespace:
    """Set up a measurement, offline and on one thread; returns its ``seed`` and its folder ``zoo``."""
    stay_offline()
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("mcpipe").setLevel(logging.INFO)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    parser = argparse.ArgumentParser(prog=f"python -m zoo.scores.{name}", description=description)
    parser.add_argument("--seed", type=int, default=7, help="of the world to measure on")
    parser.add_argument("--zoo", type=Path, default=Path("zoo"), help="folder of the checkpoints")
    return parser.parse_args(arguments)


def gates(zoo: Path, seed: int) -> list[Gate]:
    """All gates, measured with the checkpoints of a folder on the world of a seed."""
    pipeline = load_generator(zoo / "generator")
    scorers = Scorers(load(zoo, "faces", "puppet"), Clip(zoo / "clip"))
    sample = read_params(SETTINGS, "generate", GenerateParams).sample
    strangers = list(tasks(scorers.faces, seed, 2, NUM_PAIRS))
    alike = list(tasks(scorers.faces, seed, 2, NUM_PAIRS, alike=True))
    real = [reconstruction(pipeline.vae, task.target) for task in strangers]
    real_alike = [reconstruction(pipeline.vae, task.target) for task in alike]
    none = list(drawn(pipeline, strangers, sample, seed, "no references"))
    plain = list(drawn(pipeline, alike, sample, seed, "references"))
    masked = list(drawn(pipeline, alike, sample, seed, "oracle"))
    separations = [
        [scorers.separation(*each) for each in zip(alike, images, strict=True)] for images in (masked, plain)
    ]
    gain, low = difference(*separations, seed)
    leaks = [scorers.leaks(*each) for each in zip(alike, plain, strict=True)]
    seen, missed = planted(alike, scorers)
    return [
        Gate("ceiling", "Face-Sim of true images after the autoencoder", face_sim(strangers, real, scorers), 0.85),
        Gate("real_alike", "own minus cross of true look-alikes after the autoencoder",
             float(np.mean([scorers.separation(*each) for each in zip(alike, real_alike, strict=True)])), 0.25),
        Gate("floor", "Face-Sim of images drawn without references", face_sim(strangers, none, scorers), 0.1,
             below=True),
        Gate("planted_leaks", "share of planted leaks that the reader finds", seen, 0.85),
        Gate("misread", "share of faces without a leak in which the reader finds one", missed, 0.15, below=True),
        Gate("oracle", f"own minus cross gained by attention masked with the true layout, lower end (mean {gain:.3f})",
             low, 0.0),
        Gate("power", "change of own minus cross that such a study would show four times in five; bar: the oracle's",
             detectable(*separations), gain, below=True),
        Gate("leaks", "leak rate of look-alikes, drawn without the paper's regularisation",
             float(np.mean([rate for rate in leaks if rate is not None] or [np.nan])), 0.15),
    ]  # fmt: skip


def face_sim(given: Sequence[Task], images: Sequence[np.ndarray], scorers: Scorers) -> float:
    """Mean Face-Sim of images."""
    pairs = zip(given, images, strict=True)
    return float(np.mean([identity_reward(task.identities @ scorers.faces.faces(image).embeddings.T)
                          for task, image in pairs]))  # fmt: skip


def drawn(
    pipeline: FluxPipeline, given: Sequence[Task], sample: SampleParams, seed: int, kind: str
) -> Iterator[np.ndarray]:
    """Images of tasks: with ``references``, with ``no references``, or with references and the layout (``oracle``)."""
    prompts, seeds = [task.prompt for task in given], [1000 * seed + number for number in range(len(given))]
    references = [task.references for task in given]
    parts = batches(pipeline, Requests(prompts, references, seeds, sample, GENERATED, BATCH))
    total = -(-len(given) // BATCH)
    for number, (network, conditions, noise) in enumerate(track(parts, total, f"drawing with {kind}")):
        owners = torch.from_numpy(np.stack([task.owners for task in given[number * BATCH : (number + 1) * BATCH]]))
        given_to = {
            "no references": conditions.hidden(),
            "references": conditions,
            "oracle": replace(conditions, owners=owners),
        }
        yield from decode_latents(pipeline, latents(network, given_to[kind], noise, sample))


def difference(after: Sequence[float], before: Sequence[float], seed: int) -> tuple[float, float]:
    """Mean of paired differences and the lower end of its 95 % bootstrap interval over pairs of people."""
    gains = np.array(after) - np.array(before)
    picks = np.random.default_rng(seed).integers(0, len(gains), (RESAMPLES, len(gains)))
    return float(gains.mean()), float(np.quantile(gains[picks].mean(axis=1), 0.025))


def detectable(after: Sequence[float], before: Sequence[float]) -> float:
    """The smallest mean of paired differences that a two-sided test at 5 % shows with a power of 80 %.

    From the spread of the given differences, in the normal approximation.
    """
    deviation = float(np.std(np.array(after) - np.array(before), ddof=1))
    return (norm.ppf(0.975) + norm.ppf(0.8)) * deviation / len(after) ** 0.5


def planted(given: Sequence[Task], scorers: Scorers) -> tuple[float, float]:
    """Shares of true faces in which the reader finds a leak: of the wrong person's faces, and of the right one's."""
    wrong, right = [], []
    for task in given:
        located = scorers.faces.faces(task.target)
        pairs = pairing(task.identities @ located.embeddings.T)
        for person, face in pairs.items():
            embedding = scorers.clip.pictures([face_crop(task.target, located.boxes[face], REFERENCE_PX)])[0]
            own, other = task.phrases[person], task.phrases[1 - person]
            right.append(has_leak(embedding, own, [other], scorers.clip))
            wrong.append(has_leak(embedding, other, [own], scorers.clip))
    seen, misread = ([verdict for verdict in each if verdict is not None] for each in (wrong, right))
    return float(np.mean(seen)), float(np.mean(misread))


def gate_table(measured: Sequence[Gate], seed: int) -> Table:
    """The gates with their bars."""
    table = Table(title=f"Gates of the evidence, world {seed}, {NUM_PAIRS} pairs of strangers and of look-alikes each")
    for name in ("gate", "condition", "value", "bar", "passed"):
        table.add_column(name, justify="right" if name in ("value", "bar") else "left")
    for gate in measured:
        sign = "<=" if gate.below else ">="
        table.add_row(
            gate.name, gate.meaning, f"{gate.value:.3f}", f"{sign} {gate.bar:.3g}", "yes" if gate.passed else "no"
        )
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
