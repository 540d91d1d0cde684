"""Stage 5: training samples: references, square target, masks, caption, provenance, split."""

from pathlib import Path

import numpy as np

from mcpipe.curate.samples import (
    SamplesParams,
    crop_masks,
    crop_square,
    face_crop,
    face_masks,
    identity_groups,
    portrait,
    split_by_identity,
    square_window,
)
from mcpipe.engine import kept
from mcpipe.records import JSON, Record, Rejection
from mcpipe.report import Report, read_report
from mcpipe.shards import join_shards, whole_folder, write_shards


def run(frames: Path, subjects: Path, identity: Path, captions: Path, samples: Path, params: SamplesParams) -> None:
    """Write a sample for every captioned clip, split by identity."""
    report = Report("samples", ("opencv-python-headless",))
    people = identities(identity, captions, params)
    splits = dict(zip(people, split_by_identity(list(people.values()), params.val_fraction, params.seed), strict=True))
    sources = [read_report(folder)["versions"] for folder in (frames, subjects, identity, captions)]
    versions = {name: text for source in sources if isinstance(source, dict) for name, text in source.items()}

    def decide(records: tuple[Record, ...]) -> Record | Rejection:
        key = records[0].key
        return sample_of(records, {"identities": [*people[key]], "split": splits[key], "versions": versions}, params)

    items = ((records[0].key, records) for records in join_shards(frames, subjects, identity, captions))
    with whole_folder(samples) as folder:
        write_shards(kept(items, len(people), decide, report), folder, params.records_per_shard)
        report.facts = {
            "identities": len({who for names in people.values() for who in names}),
            "train": sum(split == "train" for split in splits.values()),
            "val": sum(split == "val" for split in splits.values()),
        }
        report.write(folder)


def identities(identity: Path, captions: Path, params: SamplesParams) -> dict[str, list[str]]:
    """The names of everyone in every captioned clip; one person has one name in all clips."""
    verified = [records[0] for records in join_shards(identity, captions)]
    if not verified:
        return {}
    means = [record.arrays["embeddings"].mean(axis=0) for record in verified]
    stacked = np.concatenate(means)
    groups = identity_groups(stacked / np.linalg.norm(stacked, axis=1, keepdims=True), params.same_identity)
    names = iter(f"person-{group:05d}" for group in groups)
    return {record.key: [next(names) for _ in mean] for record, mean in zip(verified, means, strict=True)}


def sample_of(records: tuple[Record, ...], origin: dict[str, JSON], params: SamplesParams) -> Record | Rejection:
    """One sample; index i is the same person in every array."""
    frames, subjects, identity, captions = records
    initial, middle = frames.arrays["initial"], frames.arrays["middle"]
    order, boxes = identity.arrays["order"], identity.arrays["face_boxes"]
    window = square_window(subjects.arrays["boxes"][1], *middle.shape[:2])
    if window is None:
        return Rejection("no_square_holds_all", "the people stand wider than the frame is high")
    bodies = subjects.arrays["masks"][1][order]
    body_masks = crop_masks(bodies, window, params.image_size)
    masks = crop_masks(face_masks(bodies, boxes[1]), window, params.image_size)
    if not masks.any(axis=(1, 2)).all():
        return Rejection("face_mask_empty", "a face covers no pixel of the target")
    scores = {"similarity": identity.meta["similarity"], "margin": identity.meta["margin"]}
    return Record(
        frames.key,
        {
            "caption": captions.text("caption"),
            "identities": origin["identities"],
            "split": origin["split"],
            "provenance": {**frames.meta, **scores, "window_px": list(window), "versions": origin["versions"]},
        },
        {
            "target": crop_square(middle, window, params.image_size),
            "body_masks": body_masks,
            "face_masks": masks,
            "faces": np.stack([face_crop(initial, box, params.reference_size) for box in boxes[0]]),
            "portraits": np.stack(
                [portrait(initial, mask, params.portrait_size) for mask in subjects.arrays["masks"][0]]
            ),
        },
    )
