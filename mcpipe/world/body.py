"""Bodies down to the hips: where the joints are, and the outlines of trunk and neck.

Lengths are in units of the head's radius. "Left" and "right" are the person's own, so a person's left is on the
right of the image.
"""

from dataclasses import dataclass

import numpy as np

from mcpipe.world.canvas import Points, curve, ellipse
from mcpipe.world.colours import Colour, mixed, scaled
from mcpipe.world.head import Head
from mcpipe.world.traits import Outfit

SHOULDER_DROP = 1.50
"""From the centre of the head down to the line of the shoulders."""

SHOULDER_HALF_WIDTH = 1.12
HIP_DROP = 4.45
HIP_HALF_WIDTH = 0.72
HEM_DROP = 6.6
"""Where the shirt ends: below every half-body image."""

LEG = 2.6
"""Length of a thigh, and of a shin; legs lie outside every half-body image."""

UPPER_ARM = 1.38
FOREARM = 1.22
ARM_RADIUS = 0.27

KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
"""COCO's order."""

SIDES = {"right": -1, "left": 1}
"""A person's own sides, and where they are in the image; either hand may be the one that holds."""


@dataclass(frozen=True)
class BodyPose:
    """Pose of the body below the head; angles in radians."""

    lean: float
    arms: dict[str, tuple[float, float]]
    """Per side: the upper arm's angle outwards from straight down, and the elbow's, negative inwards."""

    holding: str
    """The side whose hand holds the object, if there is one."""


class Body:
    """Joints of one person in pixels, and the outfit."""

    def __init__(self, head: Head, pose: BodyPose, outfit: Outfit) -> None:
        """Hang the skeleton below a head."""
        self.head, self.pose, self.outfit, self.unit = head, pose, outfit, head.radius
        self.light = head.pose.light
        self._lean = float(np.cos(pose.lean)), float(np.sin(pose.lean))
        build = head.identity.build
        self.joints = {"neck": self.spine(0.0, SHOULDER_DROP - 0.25)}
        for name, side in SIDES.items():
            shoulder = self.spine(side * SHOULDER_HALF_WIDTH * build, SHOULDER_DROP + 0.14)
            upper, elbow = pose.arms[name]
            joint = shoulder + self.unit * UPPER_ARM * np.array([side * np.sin(upper), np.cos(upper)])
            turn = upper + elbow
            hip = self.spine(side * HIP_HALF_WIDTH * build, HIP_DROP)
            self.joints |= {
                f"{name}_shoulder": shoulder,
                f"{name}_elbow": joint,
                f"{name}_wrist": joint + self.unit * FOREARM * np.array([side * np.sin(turn), np.cos(turn)]),
                f"{name}_hip": hip,
                f"{name}_knee": hip + np.array([0.0, LEG * self.unit]),
                f"{name}_ankle": hip + np.array([0.0, 2 * LEG * self.unit]),
                f"{name}_eye": head.eye(side),
                f"{name}_ear": head.ear(side)[0],
            }
        self.joints["nose"] = head.nose_tip()

    def keypoints(self) -> np.ndarray:
        """COCO's 17 keypoints (17, 2) in pixels."""
        return np.stack([self.joints[name] for name in KEYPOINTS])

    def spine(self, x: float, y: float) -> Points:
        """The pixel at a place beside the spine, measured from the centre of the head."""
        cosine, sine = self._lean
        left, top = self.head.pose.centre
        return np.array([left + self.unit * (cosine * x - sine * y), top + self.unit * (sine * x + cosine * y)])

    def torso(self) -> Points:
        """The outline of the shirt's trunk."""
        build = self.head.identity.build
        right_side = [
            (0.34, SHOULDER_DROP - 0.34), (0.72 * build, SHOULDER_DROP - 0.20), (1.20 * build, SHOULDER_DROP - 0.02),
            (1.32 * build, SHOULDER_DROP + 0.34), (1.04 * build, SHOULDER_DROP + 0.95),
            (0.90 * build, SHOULDER_DROP + 1.9), (1.00 * build, HIP_DROP), (1.02 * build, HEM_DROP),
        ]  # fmt: skip
        left_side = [(-x, y) for x, y in reversed(right_side)]
        return curve(*[self.spine(x, y) for x, y in (*right_side, *left_side)], points=5)

    def neckline(self) -> Points:
        """The opening of the shirt."""
        centre = self.spine(0.0, SHOULDER_DROP - 0.30)
        return ellipse(centre, (0.44 * self.unit, 0.30 * self.unit), self.pose.lean, 20)


def stripe_colour(shirt: Colour) -> Colour:
    """The second colour of a striped shirt: lighter on a dark one, darker on a light one."""
    return mixed(shirt, (255, 255, 255), 0.55) if sum(shirt) < 330 else scaled(shirt, 0.55)
