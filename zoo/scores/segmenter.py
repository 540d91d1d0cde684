"""Scores of the segmenter: overlap with true masks, prompted with true boxes."""

import numpy as np

from mcpipe.core.progress import track
from mcpipe.models.segmenter import Sam2
from mcpipe.world.scene import OBJECT_LABEL, mask_box
from zoo.build.segmenter import SMALLEST_AREA_PX, masks_of
from zoo.scores.draw import Job
from zoo.scores.figures import Figure
from zoo.scores.pose import SHOTS, Kind, frames

NUM_FRAMES = 150


def measure(job: Job) -> list[Figure]:
    """Draw frames and cut out everything in them."""
    segmenter = Sam2(job.zoo / "segmenter")
    return [figure for prefix, kind in SHOTS.items() for figure in overlaps(segmenter, job.seed, prefix, kind)]


def overlaps(segmenter: Sam2, seed: int, prefix: str, kind: Kind) -> list[Figure]:
    """Overlap on frames of a kind."""
    people, held = [], []
    for frame in track(frames(seed, kind, NUM_FRAMES), NUM_FRAMES, f"{prefix}segmenter"):
        truth = list(masks_of(frame.labels, SMALLEST_AREA_PX))
        boxes = np.array([mask_box(mask) for mask in truth], np.float32).reshape(-1, 4)
        for mask, mine in zip(truth, segmenter.masks(frame.rgb, boxes), strict=True):
            shares = held if frame.labels[mask].max() > OBJECT_LABEL else people
            shares.append(float((mask & mine).sum() / (mask | mine).sum()))
    return [
        Figure(f"{prefix}person_iou", float(np.mean(people)), len(people), "people", 0.85),
        Figure(f"{prefix}person_iou_p10", float(np.quantile(people, 0.1)), len(people), "people", 0.75),
        Figure(f"{prefix}object_iou", float(np.mean(held)), len(held), "held objects", 0.6),
    ]
