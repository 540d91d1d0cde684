"""Training samples: references, square target, masks, caption, provenance, split."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from mcpipe.core.packing import Packed
from mcpipe.core.records import JSON, RejectionError
from mcpipe.core.report import Report, read_report
from mcpipe.core.schemas.curation import (
    ClipCaption,
    ClipPeople,
    CutSample,
    FramePair,
    VerifiedIdentity,
    with_split,
)
from mcpipe.core.shards import StoredItems
from mcpipe.curate.buckets import shapes_of, target_frame
from mcpipe.curate.recognisers import threshold_for
from mcpipe.curate.samples import (
    SamplesParams,
    clip_groups,
    closeup,
    closeup_window,
    crop_masks,
    crop_window,
    face_crop,
    face_masks,
    identity_groups,
    on_white,
    portrait,
    resize,
    split_by_identity,
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
        return with_split(sample, people[sample.key], splits[sample.key], versions)

    report = Report("samples", ("opencv-python-headless",))
    report.facts = {
        "identities": len({who for names in people.values() for who in names}),
        "train": sum(split == "train" for split in splits.values()),
        "val": sum(split == "val" for split in splits.values()),
        "largest_group": largest_group(people),
    }
    kinds = (FramePair, ClipPeople, VerifiedIdentity, ClipCaption)
    items = StoredItems(*zip(sources, kinds, strict=True))
    write_decided(items, work, report, samples, params.records_per_shard, complete)


def references(
    picture: UInt8[np.ndarray, "H W 3"],
    masks: Bool[np.ndarray, "N H W"],
    boxes: Float[np.ndarray, "N 4"],
    params: SamplesParams,
) -> UInt8[np.ndarray, "N S S 3"]:
    """The face reference of each person in an image; on white, it shows only the person."""
    white = params.reference_background == "white"
    pictures = (on_white(picture, mask) if white else picture for mask in masks)
    crops = [face_crop(picture, box, params.reference_size) for picture, box in zip(pictures, boxes, strict=True)]
    return np.stack(crops)


def largest_group(people: Mapping[str, Sequence[str]]) -> int:
    """The most samples that stay together because they share people; says so if these are most of all."""
    largest = int(np.bincount(clip_groups(people), minlength=1).max())
    if largest > max(len(people) * MOST_IN_ONE_GROUP, 2):
        logger.warning(
            "samples: %d of %d clips share people with each other by samples.same_identity, so that the split cannot "
            "part them; a higher threshold separates more people",
            largest,
            len(people),
        )
    return largest


def identities(identity: Path, captions: Path, params: SamplesParams) -> dict[str, list[str]]:
    """The names of everyone in every captioned clip; one person has one name in all clips."""
    captioned = StoredItems((identity, VerifiedIdentity), (captions, ClipCaption))
    verified = [item.read(VerifiedIdentity) for item in captioned]
    if not verified:
        return {}
    means = [clip.embeddings.mean(axis=0) for clip in verified]
    stacked = np.concatenate(means)
    same_identity = threshold_for(verified[0].recogniser, params.same_identity, "samples.same_identity")
    groups = identity_groups(stacked / np.linalg.norm(stacked, axis=1, keepdims=True), same_identity)
    names = iter(f"person-{group:05d}" for group in groups)
    return {clip.key: [next(names) for _ in mean] for clip, mean in zip(verified, means, strict=True)}


def sample_of(
    frames: FramePair, subjects: ClipPeople, identity: VerifiedIdentity, captions: ClipCaption, params: SamplesParams
) -> CutSample:
    """One sample; index i is the same person in every array.

    Raises:
        RejectionError: no square holds everybody or their faces, or a face covers no pixel of it.
    """
    order, boxes = identity.order, identity.face_boxes
    bodies = subjects.masks[1][order]
    shapes, square = shapes_of(params.aspect, params.buckets), (params.image_size, params.image_size)
    window, shape = target_frame(bodies, subjects.boxes[1][order], boxes[1], params.crop, params.min_body, shapes)
    size, window_px = (square, window[:3]) if shape is None else (shape, window)
    faces_in_frame = face_masks(bodies, boxes[1])
    masks = crop_masks(faces_in_frame, window, size)
    if not masks.any(axis=(1, 2)).all():
        raise RejectionError("face_mask_empty", "a face covers no pixel of the target")
    closeups = [closeup(frames.middle, bodies, box, person) for person, box in enumerate(boxes[1])]
    provenance: dict[str, JSON] = {"window_px": [*window_px]}
    for stage in (frames, subjects, identity, captions):
        provenance |= stage.description
    return CutSample(
        key=frames.key,
        caption=captions.caption,
        provenance=provenance,
        target=crop_window(frames.middle, window, size),
        body_masks=crop_masks(bodies, window, size),
        masks=masks,
        references=references(frames.initial, subjects.masks[0], boxes[0], params),
        portraits=np.stack([portrait(frames.initial, mask, params.portrait_size) for mask in subjects.masks[0]]),
        closeups=np.stack([resize(picture, square) for picture in closeups]),
        closeup_masks=np.concatenate(
            [
                crop_masks(mask[None], closeup_window(box, *frames.middle.shape[:2]), square)
                for mask, box in zip(faces_in_frame, boxes[1], strict=True)
            ]
        ),
        closeup_captions=captions.closeup_captions,
    )
