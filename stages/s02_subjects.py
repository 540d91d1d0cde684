"""Stage 2: the people of both frames: boxes, joints and masks."""

from pathlib import Path

import numpy as np

from mcpipe.curate.subjects import SubjectsParams, clean_masks
from mcpipe.curate.subjects import subjects as choose
from mcpipe.engine import kept
from mcpipe.models.pose import UltralyticsPose
from mcpipe.models.protocols import PoseDetector, Segmenter
from mcpipe.models.segmenter import Sam2
from mcpipe.records import Record, Rejection
from mcpipe.report import Report
from mcpipe.shards import read_shards, whole_folder, write_shards


def run(frames: Path, pose: Path, segmenter: Path, subjects: Path, params: SubjectsParams) -> None:
    """Write the people of every clip that shows the wanted number of them in both frames."""
    detector, cutter = UltralyticsPose(pose, params.min_score), Sam2(segmenter)
    report = Report("subjects", ("ultralytics", "sam2"))

    def decide(record: Record) -> Record | Rejection:
        return people_of(record, detector, cutter, params)

    items = ((record.key, record) for record in read_shards(frames))
    total = sum(1 for _ in read_shards(frames))
    with whole_folder(subjects) as folder:
        write_shards(kept(items, total, decide, report), folder, params.records_per_shard)
        report.write(folder)


def people_of(record: Record, detector: PoseDetector, cutter: Segmenter, params: SubjectsParams) -> Record | Rejection:
    """The people of one clip, or why it is refused."""
    found = []
    for name in ("initial", "middle"):
        picture = record.arrays[name]
        people = detector.people(picture)
        chosen = choose(people.boxes, people.keypoints, picture.shape[0], params)
        if isinstance(chosen, tuple):
            return Rejection(chosen[0], f"{name} frame: {chosen[1]}")
        boxes = people.boxes[chosen]
        masks = clean_masks(cutter.masks(picture, boxes), boxes, params)
        if isinstance(masks, tuple):
            return Rejection(masks[0], f"{name} frame: {masks[1]}")
        found.append((boxes, people.keypoints[chosen], masks))
    boxes, keypoints, masks = (np.stack(parts) for parts in zip(*found, strict=True))
    return Record(record.key, {}, {"boxes": boxes, "keypoints": keypoints, "masks": masks})
