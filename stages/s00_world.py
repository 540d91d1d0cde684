"""Stage 0: the embedded source of the pipeline, rendered: clips, a pool of faces, and the truth about the clips.

The truth is for tests and for judging the pipeline from outside; no stage reads it.
"""

import csv
import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
from PIL import Image

from mcpipe.core.progress import track
from mcpipe.core.shards import whole_folder
from mcpipe.world.captions import LASTING, attributes, describe_face, describe_person
from mcpipe.world.clips import ClipSpec, ClipTruth, WorldParams, clip_specs, told_people, write_clip
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.scene import render_portrait

FACES_NAMESPACE = "faces"


def run(clips: Path, faces: Path, truth: Path, params: WorldParams) -> None:
    """Write video files to ``clips``, portraits and faces.csv to ``faces``, and what the clips show to ``truth``."""
    specs = clip_specs(params)
    with whole_folder(clips) as video, whole_folder(faces) as pool, whole_folder(truth) as told:
        jobs = [(video, told, spec, params) for spec in specs]
        # Spawned, because a forked copy of a process with threads can hang.
        with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as workers:
            for _ in track(workers.map(_clip, jobs), len(jobs), "world"):
                pass
        write_faces(pool, params)


def _clip(job: tuple[Path, Path, ClipSpec, WorldParams]) -> None:
    """One clip in a process of its own, with one thread."""
    video, told, spec, params = job
    cv2.setNumThreads(1)
    write_truth(told, write_clip(video, spec, params))


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
        described[name] = told_people(frame.people)
        Image.fromarray(frame.labels).save(folder / f"{clip.spec.name}.{name}.png")
    (folder / f"{clip.spec.name}.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def write_faces(folder: Path, params: WorldParams) -> None:
    """Write the portraits ``face_000.png`` and so on, and what they show to ``faces.csv``."""
    columns = ["file", *LASTING, "description", "identity"]
    with (folder / "faces.csv").open("w", encoding="utf-8", newline="") as lines:
        table = csv.DictWriter(lines, columns, lineterminator="\n")
        table.writeheader()
        for number in range(params.faces):
            rng = world_rng(FACES_NAMESPACE, params.seed, number)
            frame = render_portrait(sample_identity(rng), rng, params.portrait_size)
            Image.fromarray(frame.rgb).save(folder / f"face_{number:03d}.png")
            (sitter,) = frame.people
            words = attributes(sitter.identity, sitter.outfit)
            row = {"file": f"face_{number:03d}.png", "description": describe_face(sitter.identity)}
            table.writerow(row | {name: words[name] for name in LASTING} | {"identity": sitter.identity.key})
