"""Stand-ins for models whose weights cannot be had: good enough to follow a real clip to its sample, no more.

They are loaded like the adapters that they stand in for, from a path, and can be imported by other processes.
"""

import cv2
import numpy as np

from mcpipe.models.pose import UltralyticsPose

NOSE, EYES_AND_EARS, SHOULDERS, HIPS = 0, (1, 2, 3, 4), (5, 6), (11, 12)
LIMBS = ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16))
SEEN = 0.5
LEAST_SCORE = 0.25
LIMB_WIDTH = 0.35
"""In units of the distance between the shoulders, as long as the body is seen from the front."""


class KeypointSegmenter:
    """In place of SAM 2: head, torso and limbs drawn around the joints of the detection that a box belongs to."""

    def __init__(self, pose_checkpoint):
        self._pose = UltralyticsPose(pose_checkpoint, LEAST_SCORE)

    def masks(self, picture, boxes):
        return self.masks_of([picture], [boxes])[0]

    def masks_of(self, pictures, boxes):
        people = self._pose.people_of(pictures)
        return [self._drawn(*parts) for parts in zip(pictures, boxes, people, strict=True)]

    def _drawn(self, picture, boxes, people):
        drawn = np.zeros((len(boxes), *picture.shape[:2]), bool)
        for mask, box in zip(drawn, boxes, strict=True):
            nearest = int(np.abs(people.boxes - box).sum(axis=1).argmin())
            mask[:] = body(people.keypoints[nearest], box, picture.shape[:2])
        return drawn


def body(keypoints, box, shape):
    """The mask of one person of 17 COCO joints (x, y, certainty) in a picture of a shape."""
    canvas = np.zeros(shape, np.uint8)
    points, seen = keypoints[:, :2], keypoints[:, 2] >= SEEN
    x0, y0, x1, y1 = box
    shoulders = [points[i] for i in SHOULDERS if seen[i]]
    width = float(np.linalg.norm(points[5] - points[6])) if len(shoulders) == 2 else 0.0
    width = max(width, 0.4 * float(x1 - x0))
    if shoulders:
        bottom = [points[i] for i in HIPS if seen[i]] or [(x, y1) for x, _ in shoulders]
        torso = np.array([*shoulders, *bottom], np.float32)
        pad = 0.15 * width * np.array([[-1, 0], [1, 0]], np.float32)
        corners = (torso[:, None] + pad).reshape(-1, 2).round().astype(np.int32)
        cv2.fillConvexPoly(canvas, cv2.convexHull(corners), 1)
    for a, b in LIMBS:
        if seen[a] and seen[b]:
            ends = [tuple(int(v) for v in points[i].round()) for i in (a, b)]
            cv2.line(canvas, *ends, 1, max(1, round(LIMB_WIDTH * width)))
    head = points[[NOSE, *EYES_AND_EARS]][seen[[NOSE, *EYES_AND_EARS]]]
    if len(head):
        centre = head.mean(axis=0)
        below = float(np.mean(shoulders, axis=0)[1] - centre[1]) if shoulders else float(centre[1] - y0)
        tall = max(float(centre[1] - y0), 0.9 * below, 1.0)
        cv2.ellipse(canvas, tuple(int(v) for v in centre), (round(0.8 * tall), round(tall)), 0, 0, 360, 1, -1)
        if shoulders:
            neck = tuple(int(v) for v in np.mean(shoulders, axis=0))
            cv2.line(canvas, tuple(int(v) for v in centre), neck, 1, max(1, round(0.6 * tall)))
    inside = np.zeros(shape, bool)
    inside[max(int(y0), 0) : int(np.ceil(y1)), max(int(x0), 0) : int(np.ceil(x1))] = True
    return (canvas > 0) & inside


class TemplateCaptioner:
    """In place of Qwen2.5-VL: the same sentence about any number of people."""

    def __init__(self, folder):
        self.folder = folder

    def answer(self, pictures, instruction, *, temperature, seed, max_tokens):
        num_people = len(pictures) - 1
        described = ["a person wearing a shirt" for _ in range(num_people)]
        counted = {1: "one person", 2: "two people", 3: "three people", 4: "four people"}[num_people]
        return f"{counted} in a room, from left to right: " + " and ".join(described)
