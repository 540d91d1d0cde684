"""Ground truth of people in an image: bounds, keypoints, faces; computed from the geometry and the labels."""

from dataclasses import dataclass

import numpy as np

from mcpipe.world.attributes.held import OBJECT_LABEL
from mcpipe.world.body import Body
from mcpipe.world.head import AWAY_YAW, PROFILE_YAW
from mcpipe.world.traits import Identity, Outfit


@dataclass(frozen=True)
class PersonTruth:
    """Ground truth of one person in one image; pixels, x to the right and y down."""

    identity: Identity
    outfit: Outfit
    box: np.ndarray | None
    """Bounds (4,) x0 y0 x1 y1 of the visible pixels, the far ones exclusive; None if the person is not visible."""

    keypoints: np.ndarray
    """COCO's keypoints (17, 3): x, y, and 0 outside the image, 1 hidden, 2 visible."""

    face_box: np.ndarray
    """(4,), hairline to chin, not clipped."""

    landmarks: np.ndarray
    """(5, 2): eyes, nose, corners of the mouth; the image's left first."""

    face_visible: float
    """Visible share of the face, in [0, 1]; 0 beyond a profile."""

    head_height_px: float


def person_truth(body: Body, labels: np.ndarray, label: int) -> PersonTruth:
    """The truth of the person painted under ``label`` in the label image (H, W)."""
    head = body.head
    return PersonTruth(
        identity=head.identity,
        outfit=body.outfit,
        box=mask_box(labels == label),
        keypoints=_seen_keypoints(body, labels, label),
        face_box=head.face_box(),
        landmarks=head.landmarks(),
        face_visible=_face_visible(body, labels, label),
        head_height_px=2.0 * head.radius,
    )


def mask_box(mask: np.ndarray) -> np.ndarray | None:
    """Bounds (4,) x0 y0 x1 y1 of a mask, the far ones exclusive, or None if it is empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if len(columns) == 0:
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)


def _seen_keypoints(body: Body, labels: np.ndarray, label: int) -> np.ndarray:
    height, width = labels.shape
    points = body.keypoints()
    seen = np.zeros(len(points))
    for index, (x, y) in enumerate(points):
        if 0 <= x < width and 0 <= y < height:
            front = int(labels[int(y), int(x)])
            hidden = front not in (0, label, label + OBJECT_LABEL) or _behind_own_head(body, index)
            seen[index] = 1 if hidden else 2
    return np.column_stack([points, seen])


def _behind_own_head(body: Body, index: int) -> bool:
    """Whether a keypoint of the face or an ear is on the far side of the head."""
    head = body.head
    if index <= 2:
        return abs(head.pose.yaw) > AWAY_YAW
    if index in (3, 4):
        return head.ear(1 if index == 3 else -1)[1] < -0.45
    return False


def _face_visible(body: Body, labels: np.ndarray, label: int) -> float:
    if abs(body.head.pose.yaw) > PROFILE_YAW:
        return 0.0
    height, width = labels.shape
    left, top, right, bottom = body.head.face_box()
    x = np.linspace(left, right, 24)[1:-1].astype(int)
    y = np.linspace(top, bottom, 24)[1:-1].astype(int)
    inside_x, inside_y = x[(x >= 0) & (x < width)], y[(y >= 0) & (y < height)]
    seen = np.isin(labels[np.ix_(inside_y, inside_x)], (label, 0)).sum()
    return float(seen) / (len(x) * len(y))
