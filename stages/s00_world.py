"""Stage 0: the embedded source of the pipeline, rendered: clips, a pool of faces, and the truth about the clips.

The ground truth is for tests and for an external evaluation of the pipeline; no stage reads it.
"""

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import cv2
from PIL import Image

from mcpipe.core.progress import track
from mcpipe.core.shards import whole_folder
from mcpipe.world.captions import LASTING, PHRASES, attributes, describe_face, describe_person, trait_phrases
from mcpipe.world.clips import ClipSpec, ClipTruth, WorldParams, clip_specs, people_as_json, write_clip
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.lookalikes import look_alike
from mcpipe.world.scene import render_portrait

FACES_NAMESPACE = "faces"

T = TypeVar("T")


def run(clips: Path, faces: Path, truth: Path, params: WorldParams) -> None:
    """Write video files to ``clips``, portraits and faces.csv to ``faces``, and the clips' ground truth to ``truth``.

    Clips and portraits are rendered in as many processes as ``MCPIPE_WORKERS`` says, by default one per core; each
    depends on the seed and its number alone, so that the number of processes changes no byte.

    Raises:
        ValueError: ``MCPIPE_WORKERS`` is no positive whole number.
        OSError: an output cannot be written, or a process died.
    """
    with whole_folder(clips) as video, whole_folder(faces) as pool, whole_folder(truth) as records:
        jobs: list[Callable[[], dict[str, str] | None]] = []
        jobs += [partial(_clip, video, records, spec, params) for spec in clip_specs(params)]
        jobs += [partial(write_portrait, pool, number, params) for number in range(params.faces)]
        done = track(side_by_side(jobs, processes()), len(jobs), "world")
        write_table(pool / "faces.csv", [row for row in done if row is not None])


def processes() -> int:
    """How many processes render: ``MCPIPE_WORKERS``, or one per core.

    Raises:
        ValueError: the variable is no positive whole number.
    """
    workers = os.environ.get("MCPIPE_WORKERS", str(os.cpu_count() or 1))
    if not (workers.isascii() and workers.isdigit() and int(workers) > 0):
        raise ValueError(f"MCPIPE_WORKERS should be a positive whole number, not {workers!r}")
    return int(workers)


def side_by_side(jobs: Sequence[Callable[[], T]], workers: int) -> Iterator[T]:
    """The results of jobs in their order; with several workers each is a process of its own, with one thread.

    The first error stops all jobs that have not begun.

    Raises:
        OSError: a process died.
    """
    if min(workers, len(jobs)) <= 1:
        yield from (job() for job in jobs)
        return
    # Spawned, because a forked copy of a process with threads can hang.
    pool = ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), cv2.setNumThreads, (1,))
    try:
        for future in [pool.submit(job) for job in jobs]:
            yield future.result()
    except BrokenProcessPool:
        raise OSError("a process that rendered was ended from outside; is there enough memory?") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _clip(video: Path, truth: Path, spec: ClipSpec, params: WorldParams) -> None:
    write_truth(truth, write_clip(video, spec, params))


def write_truth(folder: Path, clip: ClipTruth) -> None:
    """Write ``NAME.json`` and the label images ``NAME.initial.png`` and ``NAME.middle.png``."""
    described = {
        "clip": clip.file,
        "kind": clip.spec.kind,
        "people": [
            {"identity": person.identity.key, "description": describe_person(person.identity, person.outfit)}
            | attributes(person.identity, person.outfit)
            for person in clip.middle.people
        ],
    }
    for name, frame in (("initial", clip.initial), ("middle", clip.middle)):
        described[name] = people_as_json(frame.people)
        Image.fromarray(frame.labels).save(folder / f"{clip.spec.name}.{name}.png")
    (folder / f"{clip.spec.name}.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def write_portrait(folder: Path, number: int, params: WorldParams) -> dict[str, str]:
    """Write the portrait ``face_NNN.png``; returns its row of ``faces.csv``."""
    rng = world_rng(FACES_NAMESPACE, params.seed, number)
    identity = sample_identity(rng)
    if number % 2 and params.alike and rng.random() < params.alike:
        identity = look_alike(rng, sample_identity(world_rng(FACES_NAMESPACE, params.seed, number - 1)))
    frame = render_portrait(identity, rng, params.portrait_size)
    file = f"face_{number:03d}.png"
    Image.fromarray(frame.rgb).save(folder / file)
    (sitter,) = frame.people
    words = attributes(sitter.identity, sitter.outfit)
    lasting = {name: words[name] for name in LASTING}
    return {
        "file": file,
        **lasting,
        **trait_phrases(identity),
        "description": describe_face(sitter.identity),
        "identity": sitter.identity.key,
    }


def write_table(file: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write ``faces.csv`` with the attributes of every portrait."""
    with file.open("w", encoding="utf-8", newline="") as lines:
        table = csv.DictWriter(lines, ["file", *LASTING, *PHRASES, "description", "identity"], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
