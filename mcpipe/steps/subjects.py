"""The people of both frames: boxes, joints and masks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mcpipe.core.report import Report
from mcpipe.core.schemas.curation import FRAMES, ClipPeople, FramePair
from mcpipe.core.shards import StoredItems
from mcpipe.curate.scores import Scores
from mcpipe.curate.subjects import (
    SubjectsParams,
    check_masks,
    check_people,
    check_same_number,
    clean_masks,
    mask_scores,
    people_in,
)
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
    write_decided(StoredItems((frames, FramePair)), work, report, subjects, work.params.records_per_shard)


def people_of(
    frames: FramePair, detector: ClipPoseDetector, cutter: ClipSegmenter, params: SubjectsParams
) -> ClipPeople:
    """The people of one clip.

    A batch holds the two frames of one clip and nothing else, so that no clip's result depends on its neighbours.

    Raises:
        RejectionError: a frame shows another number of people, the frames show unequal numbers, or the people cannot
            be segmented.
    """
    scores, detected = Scores(), []
    for name, picture, people in zip(FRAMES, frames.images, detector.people_of(frames.images), strict=True):
        chosen = people_in(people.boxes, people.keypoints, params)
        detected.append((people.boxes[chosen], people.keypoints[chosen]))
        scores.add({"people": len(chosen), "people_found": len(people.boxes)})
        with scores.kept(f"{name} frame: "):
            check_people(people.boxes[chosen], len(picture), params)
    with scores.kept():
        check_same_number(*(len(boxes) for boxes, _ in detected))
    masks = []
    raw_masks = cutter.masks_of(frames.images, [boxes for boxes, _ in detected])
    for name, raw, (boxes, _) in zip(FRAMES, raw_masks, detected, strict=True):
        masks.append(clean_masks(raw))
        measured = mask_scores(raw, masks[-1], boxes)
        scores.add(measured)
        with scores.kept(f"{name} frame: "):
            check_masks(measured, params)
    boxes, keypoints = (np.stack(parts) for parts in zip(*detected, strict=True))
    return ClipPeople(key=frames.key, scores=scores.measured, boxes=boxes, keypoints=keypoints, masks=np.stack(masks))
