"""Pose of a head, represented by five landmarks of its face."""

import numpy as np
from jaxtyping import Float


def face_landmarks(landmarks: Float[np.ndarray, "5 2"], box: Float[np.ndarray, " 4"]) -> Float[np.ndarray, "5 2"]:
    """Landmarks relative to the centre of the face's box, in units of the box's longer side.

    ``landmarks`` and ``box`` (x0 y0 x1 y1) are in pixels of one image. The result depends neither on the place nor on
    the size of the face; a turned or tilted head moves nose, eyes and mouth against the outline and against each other.
    """
    longer = max(float(max(box[2] - box[0], box[3] - box[1])), 1e-6)
    return ((landmarks - (box[:2] + box[2:]) / 2) / longer).astype(np.float32)
