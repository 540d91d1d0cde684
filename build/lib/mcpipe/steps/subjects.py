"""The people of both frames: boxes, joints and masks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mcpipe.core.records import Record, Rejection
from mcpipe.core.report import Report
from mcpipe.core.shards import Rows
from mcpipe.curate.scores import Scores
from mcpipe.curate.subjects import SubjectsParams, clean_masks, mask_fault, mask_scores, people_fault, people_in
from mcpipe.execution.engine import write_decided
from mcpipe.execution.workers import Decide
from mcpipe.models.pose import ClipPoseDetector, UltralyticsPose
from mcpipe.models.segmenter import ClipSegmenter, Sam2


@dataclass(frozen=True)
class SubjectsWork:
    """What this stage does to every clip."""

    pose: Path
    segmenter: Path
    params: SubjectsParams
    detector: Callable[[Path, float], ClipPoseDetector] = UltralyticsPose
    cutter: Callable[[Path], ClipSegmenter] = Sam2

    def load(self) -> Decide:
        """Load detector and segmenter; the decision on one clip."""
        detector, cutter = self.detector(self.pose, self.params.min_score), self.cutter(self.segmenter)
        return partial(people_of, detector=detector, cutter=cutter, params=self.params)


def write_subjects(work: SubjectsWork, frames: Path, subjects: Path) -> None:
    """Write the people of the clips in ``frames``."""
    report = Report("subjects", ("ultralytics", "sam2"))
    write_decided(Rows((frames,)), work, report, subjects, work.params.records_per_shard)


def people_of(
    record: Record, detector: ClipPoseDetector, cutter: ClipSegmenter, params: SubjectsParams
) -> Record | Rejection:
    """The people of one clip, or why it is refused.

    A batch holds the two frames of one clip and nothing else, so that no clip's result depends on its neighbours.
    """
    names, scores = ("initial", "middle"), Scores()
    pictures = [record.arrays[name] for name in names]
    found = []
    for name, people in zip(names, detector.people_of(pictures), strict=True):
        chosen = people_in(people.boxes, people.keypoints, params)
        found.append((people.boxes[chosen], people.keypoints[chosen]))
        scores.add({"people": len(chosen), "people_found": len(people.boxes)})
        if fault := people_fault(people.boxes[chosen], len(pictures[0]), params):
            return scores.rejection(fault, f"{name} frame: ")
    masks = []
    raw_masks = cutter.masks_of(pictures, [boxes for boxes, _ in found])
    for name, raw, (boxes, _) in zip(names, raw_masks, found, strict=True):
        masks.append(clean_masks(raw))
        measured = mask_scores(raw, masks[-1], boxes)
        scores.add(measured)
        if fault := mask_fault(measured, params):
            return scores.rejection(fault, f"{name} frame: ")
    boxes, keypoints = (np.stack(parts) for parts in zip(*found, strict=True))
    return Record(record.key, scores.told, {"boxes": boxes, "keypoints": keypoints, "masks": np.stack(masks)})
