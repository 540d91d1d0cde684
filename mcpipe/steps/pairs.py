"""Who appears together, and a prompt for every pair.

Departures from the paper:

1. Prompts are sampled anew, a few times, until one mentions everyone once.
2. Faces can be split between the benchmark and training, too (see `mcpipe.bench.pairs`).
3. A pair of the benchmark without a usable prompt is replaced, so that the benchmark has the size asked for.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated
from zlib import crc32

import numpy as np
from pydantic import Field

from mcpipe.bench.balance import Labels, counts, evenness, largest_gap
from mcpipe.bench.landmarks import face_landmarks
from mcpipe.bench.pairs import PAIRS, Pair, Split, SplitParams, all_pairs, pair_key, split_groups
from mcpipe.bench.portraits import Portrait, portraits
from mcpipe.core.params import Params, PipelinePeople, RecordsPerShard, TakenFrom, people_numbers
from mcpipe.core.records import JSON, RejectionError
from mcpipe.core.report import Report
from mcpipe.core.schemas.benchmark import PairPrompt, PoolFace
from mcpipe.core.shards import whole_folder, write_shards
from mcpipe.curate.captions import PROMPT_INSTRUCTIONS, DescribeForm, SentenceParams, fault_detail, sentence_fault
from mcpipe.curate.samples import face_crop
from mcpipe.execution.engine import kept
from mcpipe.models.images import UnusableImageError, read_image
from mcpipe.models.protocols import Captioner, FaceAnalyser, TextLimit


class PairsParams(Params):
    """Faces, pairs and prompts."""

    min_face_score: Annotated[float, Field(ge=0, le=1), TakenFrom("evaluate.min_face_score")]
    """Certainty of a face detection."""
    detection_size: Annotated[int, Field(ge=32), TakenFrom("evaluate.detection_size")]
    """Side in pixels at which the detector sees an image."""
    reference_size: Annotated[int, Field(ge=16), TakenFrom("samples.reference_size")]
    """Side of a face reference in pixels, the one the generator was trained with (paper: 320)."""
    captioner_size: int = Field(ge=28)
    """Side in pixels at which the captioner sees a face."""
    attributes: list[str]
    """Columns of the pool's table by which the draw is balanced and reported; missing values count as not given."""
    split: SplitParams
    """Which pairs are the benchmark."""
    prompt: SentenceParams
    """Requirements for a prompt; every attempt is sampled with a seed that depends on its pair."""
    num_people: PipelinePeople
    """People of a prompt (paper: 2), or a range of numbers, of which each gets an equal part of the prompts."""
    describe: DescribeForm
    """Whether prompts describe clothes and actions only, or people's faces and hair as well."""
    records_per_shard: RecordsPerShard


@dataclass(frozen=True)
class PromptWriter:
    """A captioner that writes prompts, and the length that the generator reads of them."""

    captioner: Captioner
    limit: TextLimit


def write_pairs(faces: Path, finder: FaceAnalyser, writer: PromptWriter, pairs: Path, params: PairsParams) -> None:
    """Write the usable faces, the benchmark's prompts and the prompts for reinforcement learning.

    Raises:
        FileNotFoundError: the folder of faces is missing or holds no file.
        ValueError: there are too few usable faces, its table is damaged, or no pair has a usable prompt.
    """
    with whole_folder(pairs) as folder:
        pool, labels = write_faces(faces, finder, folder / "faces", params)
        numbers = people_numbers(params.num_people)
        split = split_groups(list(pool), params.split, labels, numbers)
        report = Report("pairs", ("transformers", "qwen-vl-utils"))
        chosen = write_prompts(split, pool, writer, folder, report, params)
        for name, written in chosen.items():
            if not written:
                raise ValueError(f"no pair of the {name} set has a usable prompt; the last reasons are in the log")
        report.facts = {
            "split": params.split.split,
            "draw": params.split.draw,
            "faces": len(pool),
            "all_pairs": len(all_pairs(list(pool))),
            "bench_wanted": params.split.num_bench,
            **{name: len(written) for name, written in chosen.items()},
            "attributes": composition(params.attributes, labels, pool, chosen),
        }
        if numbers != PAIRS:
            report.facts["by_number"] = {
                str(number): {name: sum(len(group) == number for group in written) for name, written in chosen.items()}
                for number in numbers
            }
        report.write(folder)


def composition(
    attributes: Iterable[str], labels: Labels, pool: Iterable[str], chosen: Mapping[str, Iterable[Pair]]
) -> dict[str, JSON]:
    """How often every value of every attribute appears in the pool and in each set of pairs, and how even that is."""
    by_attribute: dict[str, JSON] = {}
    groups = {name: [face for pair in pairs for face in pair] for name, pairs in chosen.items()}
    for attribute in attributes:
        pool_counts = counts(attribute, pool, labels)
        parts = {name: counts(attribute, faces, labels) for name, faces in groups.items()}
        by_attribute[attribute] = {
            "pool": {**pool_counts},
            **{name: {**part} for name, part in parts.items()},
            "evenness_of_pool": round(evenness(pool_counts), 4),
            **{f"largest_gap_{name}": round(largest_gap(part, pool_counts), 4) for name, part in parts.items()},
        }
    return by_attribute


def write_faces(
    faces: Path, finder: FaceAnalyser, folder: Path, params: PairsParams
) -> tuple[dict[str, np.ndarray], Labels]:
    """Write every image with exactly one face; returns the captioner's inputs and the attributes by key.

    Every file below ``faces`` but its table has a row in the report: it is kept, or dropped with a reason.

    Raises:
        FileNotFoundError: the folder of faces is missing or holds no file.
        ValueError: no file shows exactly one face, or the table of attributes is damaged or names no file.
    """
    pool = portraits(faces)
    report = Report("faces", ("insightface", "onnxruntime"))
    first: dict[str, str] = {}

    def decide(portrait: Portrait) -> PoolFace:
        face = face_of(portrait, finder, params)
        if (earlier := first.setdefault(portrait.key, portrait.name)) != portrait.name:
            raise RejectionError("same_name", f"{earlier} is used; rename one of them")
        return face

    usable = list(kept(((portrait.name, portrait) for portrait in pool), len(pool), decide, report))
    if not usable:
        reasons = Counter(str(rejection["reason"]) for rejection in report.rejections)
        counted = ", ".join(f"{number} {reason}" for reason, number in sorted(reasons.items()))
        raise ValueError(f"no file in {faces} shows exactly one face: {counted}")
    write_shards(usable, folder, params.records_per_shard)
    report.write(folder)
    labels = {
        face.key: {name: str(face.attributes[name]) for name in params.attributes if face.attributes.get(name)}
        for face in usable
    }
    return {face.key: face.closeup for face in usable}, labels


def face_of(portrait: Portrait, finder: FaceAnalyser, params: PairsParams) -> PoolFace:
    """The one face of an image, cut like the references of samples.

    Raises:
        RejectionError: the file is not an image, or has no face or several.
    """
    try:
        picture = read_image(portrait.file)
    except UnusableImageError as error:
        raise RejectionError(error.reason, error.fault) from error
    except FileNotFoundError as error:
        raise RejectionError("not_a_file", "neither a file nor a link to one") from error
    faces = finder.faces(picture)
    if len(faces.boxes) != 1:
        raise RejectionError("several_faces" if len(faces.boxes) else "no_face", f"{len(faces.boxes)} faces")
    return PoolFace(
        key=portrait.key,
        file=portrait.name,
        attributes={**portrait.attributes},
        reference=face_crop(picture, faces.boxes[0], params.reference_size),
        closeup=face_crop(picture, faces.boxes[0], params.captioner_size),
        embedding=faces.embeddings[0],
        landmarks=face_landmarks(faces.landmarks[0], faces.boxes[0]),
    )


def write_prompts(  # noqa: PLR0913  one argument per thing that a prompt depends on
    split: Split,
    pool: Mapping[str, np.ndarray],
    writer: PromptWriter,
    folder: Path,
    report: Report,
    params: PairsParams,
) -> dict[str, list[Pair]]:
    """Write the prompts of the benchmark and of reinforcement learning; returns the pairs that have one, by set.

    Pairs of the benchmark without a usable prompt are replaced from the reserve, so that it has the size asked for.
    """

    def decide(pair: Pair) -> PairPrompt:
        return prompt_of(pair, [pool[face] for face in pair], writer, params)

    def prompts(pairs: Iterable[Pair], number: int) -> list[PairPrompt]:
        accepted = kept(((pair_key(pair), pair) for pair in pairs), number, decide, report)
        return sorted(islice(accepted, number), key=lambda prompt: prompt.key)

    bench = prompts([*split.bench, *split.reserve], params.split.num_bench)
    tried = {*report.kept, *(str(rejection["key"]) for rejection in report.rejections)}
    left = [pair for pair in split.rl if pair_key(pair) not in tried]
    chosen = {"bench": bench, "rl": prompts(left, len(left))}
    for name, accepted in chosen.items():
        write_shards(accepted, folder / name, params.records_per_shard)
    return {name: [prompt.names for prompt in accepted] for name, accepted in chosen.items()}


def prompt_of(pair: Pair, references: list[np.ndarray], writer: PromptWriter, params: PairsParams) -> PairPrompt:
    """A prompt that mentions both people of a pair once, in the form ``params.describe``.

    Raises:
        RejectionError: no answer is a usable prompt.
    """
    key, instruction = pair_key(pair), PROMPT_INSTRUCTIONS[params.describe].format(num_subjects=len(pair))
    answer, fault, settings = "", None, params.prompt
    for seed in attempt_seeds(key, settings):
        answer = writer.captioner.answer(
            references, instruction, temperature=settings.temperature, seed=seed, max_tokens=settings.max_tokens
        )
        fault = sentence_fault(answer, len(pair), settings, params.describe, writer.limit.lost)
        if fault is None:
            return PairPrompt(key=key, prompt=answer, names=pair)
    raise RejectionError(fault or "caption_missing", fault_detail(answer, fault, writer.limit.lost))


def attempt_seeds(key: str, params: SentenceParams) -> Iterator[int]:
    """Seeds that belong to one pair, so that its prompt does not depend on which other pairs are drawn."""
    return (crc32(f"{params.seed}/{key}/{attempt}".encode()) for attempt in range(params.attempts))
