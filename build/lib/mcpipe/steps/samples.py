"""Training samples: references, square target, masks, caption, provenance, split."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mcpipe.core.packing import Packed
from mcpipe.core.records import Record, Rejection
from mcpipe.core.report import Report, read_report
from mcpipe.core.shards import Rows, join_shards
from mcpipe.curate.recognisers import threshold_for
from mcpipe.curate.samples import (
    SamplesParams,
    clip_groups,
    crop_masks,
    crop_square,
    face_crop,
    face_masks,
    identity_groups,
    portrait,
    split_by_identity,
    square_window,
)
from mcpipe.execution.engine import write_decided
from mcpipe.execution.workers import Decide

logger = logging.getLogger(__name__)

MOST_IN_ONE_GROUP = 0.5
"""Part of the samples beyond which a group of people who resemble each other is worth a warning."""


@dataclass(frozen=True)
class SamplesWork:
    """What this stage does to every clip."""

    params: SamplesParams

    def load(self) -> Decide:
        """The decision on one clip."""
        return partial(sample_of, params=self.params)


def write_samples(work: SamplesWork, sources: tuple[Path, Path, Path, Path], samples: Path) -> None:
    """Write the samples of the captioned clips, with identities and the split, which only all clips together determine.

    ``sources`` are the outputs of the stages frames, subjects, identity and captions.
    """
    params = work.params
    people = identities(sources[2], sources[3], params)
    splits = split_by_identity(people, params.val_fraction, params.seed)
    accounts = [read_report(folder)["versions"] for folder in sources]
    versions = {name: text for account in accounts if isinstance(account, dict) for name, text in account.items()}

    def complete(sample: Packed) -> Packed:
        meta = sample.meta
        match meta:
            case {"provenance": dict(provenance)}:
                provenance["versions"] = versions
        return sample.with_meta({**meta, "identities": [*people[sample.key]], "split": splits[sample.key]})

    report = Report("samples", ("opencv-python-headless",))
    report.facts = {
        "identities": len({who for names in people.values() for who in names}),
        "train": sum(split == "train" for split in splits.values()),
        "val": sum(split == "val" for split in splits.values()),
        "largest_group": largest_group(people),
    }
    write_decided(Rows(sources), work, report, samples, params.records_per_shard, complete)


def largest_group(people: Mapping[str, Sequence[str]]) -> int:
    """The most samples that stay together because they share people; says so if these are most of all."""
    largest = int(np.bincount(clip_groups(people), minlength=1).max())
    if largest > max(len(people) * MOST_IN_ONE_GROUP, 2):
        logger.warning(
            "samples: %d of %d clips share people with each other by samples.same_identity, so that the split cannot "
            "part them; a higher threshold tells more people apart",
            largest,
            len(people),
        )
    return largest


def identities(identity: Path, captions: Path, params: SamplesParams) -> dict[str, list[str]]:
    """The names of everyone in every captioned clip; one person has one name in all clips."""
    verified = [records[0] for records in join_shards(identity, captions)]
    if not verified:
        return {}
    means = [record.arrays["embeddings"].mean(axis=0) for record in verified]
    stacked = np.concatenate(means)
    same_identity = threshold_for(verified[0].text("recogniser"), params.same_identity, "samples.same_identity")
    groups = identity_groups(stacked / np.linalg.norm(stacked, axis=1, keepdims=True), same_identity)
    names = iter(f"person-{group:05d}" for group in groups)
    return {record.key: [next(names) for _ in mean] for record, mean in zip(verified, means, strict=True)}


def sample_of(
    frames: Record, subjects: Record, identity: Record, captions: Record, params: SamplesParams
) -> Record | Rejection:
    """One sample; index i is the same person in every array."""
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
    return Record(
        frames.key,
        {
            "caption": captions.text("caption"),
            "provenance": {**frames.meta, **subjects.meta, **identity.meta, **captions.meta, "window_px": list(window)},
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
