"""Bodies down to the hips: torso, arms and what the hands hold.

Lengths are in units of the head's radius. "Left" and "right" are the person's own, so a person's left is on the
right of the picture.
"""

from dataclasses import dataclass

import numpy as np

from mcpipe.world.canvas import Canvas, Points, capsule, curve, ellipse, mixed, scaled
from mcpipe.world.hair import draw_back_hair, draw_front_hair
from mcpipe.world.head import INK, Head, HeadPose, draw_head
from mcpipe.world.identities import Colour, Identity
from mcpipe.world.outfits import Outfit

SHOULDER_DROP = 1.50
"""From the centre of the head down to the line of the shoulders."""

SHOULDER_HALF_WIDTH = 1.12
HIP_DROP = 4.45
HIP_HALF_WIDTH = 0.72
HEM_DROP = 6.6
"""Where the shirt ends: below every half-body picture."""

LEG = 2.6
"""Length of a thigh, and of a shin; legs lie outside every half-body picture."""

UPPER_ARM = 1.38
FOREARM = 1.22
ARM_RADIUS = 0.27

KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
"""COCO's order."""

STRIPES = 11
SIDES = {"right": -1, "left": 1}


@dataclass(frozen=True)
class BodyPose:
    """What the body does below the head; angles in radians."""

    lean: float
    arms: dict[str, tuple[float, float]]
    """Per side: the upper arm's angle outwards from straight down, and the elbow's, negative inwards."""

    holding: str
    """The side whose hand holds the object, if there is one."""


class Body:
    """Joints of one person in pixels."""

    def __init__(self, head: Head, pose: BodyPose) -> None:
        """Hang the skeleton below a head."""
        self.head, self.pose, self.unit = head, pose, head.radius
        self.light = head.pose.light
        build = head.identity.geometry.build
        self.joints = {"neck": self._spine(0.0, SHOULDER_DROP - 0.25)}
        for name, side in SIDES.items():
            shoulder = self._spine(side * SHOULDER_HALF_WIDTH * build, SHOULDER_DROP + 0.14)
            upper, elbow = pose.arms[name]
            joint = shoulder + self.unit * UPPER_ARM * np.array([side * np.sin(upper), np.cos(upper)])
            turn = upper + elbow
            hip = self._spine(side * HIP_HALF_WIDTH * build, HIP_DROP)
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

    def _spine(self, x: float, y: float) -> Points:
        """The pixel at a place beside the spine, measured from the centre of the head."""
        lean = self.pose.lean
        below = np.array([np.cos(lean) * x - np.sin(lean) * y, np.sin(lean) * x + np.cos(lean) * y])
        return np.asarray(self.head.pose.centre) + self.unit * below

    def torso(self) -> Points:
        """The outline of the shirt's trunk."""
        build = self.head.identity.geometry.build
        right_side = [
            (0.34, SHOULDER_DROP - 0.34), (0.72 * build, SHOULDER_DROP - 0.20), (1.20 * build, SHOULDER_DROP - 0.02),
            (1.32 * build, SHOULDER_DROP + 0.34), (1.04 * build, SHOULDER_DROP + 0.95),
            (0.90 * build, SHOULDER_DROP + 1.9), (1.00 * build, HIP_DROP), (1.02 * build, HEM_DROP),
        ]  # fmt: skip
        left_side = [(-x, y) for x, y in reversed(right_side)]
        return curve(*[self._spine(x, y) for x, y in (*right_side, *left_side)], points=5)

    def stripe(self, index: int) -> Points:
        """One band across the trunk, (4, 2)."""
        build = self.head.identity.geometry.build
        top = SHOULDER_DROP + 0.30 + 0.46 * index
        half = build * np.interp(top, [SHOULDER_DROP + 0.3, SHOULDER_DROP + 0.95, HIP_DROP], [1.2, 0.99, 0.94])
        corners = [(half, top), (half - 0.02, top + 0.22), (-half + 0.02, top + 0.22), (-half, top)]
        return np.stack([self._spine(x, y) for x, y in corners])

    def neckline(self, scale: float) -> Points:
        """The opening of the shirt."""
        centre = self._spine(0.0, SHOULDER_DROP - 0.30)
        return ellipse(centre, (0.44 * scale * self.unit, 0.30 * scale * self.unit), self.pose.lean, 20)


def draw_person(
    canvas: Canvas, identity: Identity, outfit: Outfit, pose: tuple[HeadPose, BodyPose], label: int
) -> Body:
    """Paint one person under ``label``, the held object under ``label`` + 100; returns the joints."""
    head = Head(identity, pose[0])
    body = Body(head, pose[1])
    draw_back_hair(canvas, head, label)
    _draw_trunk(canvas, body, outfit, label)
    _draw_neck(canvas, body, outfit, label)
    for side in ("right", "left"):
        holds = outfit.held is not None and side == pose[1].holding
        _draw_arm(canvas, body, side, outfit, label)
        if holds:
            draw_held_object(canvas, body, outfit, label + 100)
        _draw_hand(canvas, body, side, label)
    draw_head(canvas, head, label)
    draw_front_hair(canvas, head, label)
    return body


def _draw_trunk(canvas: Canvas, body: Body, outfit: Outfit, label: int) -> None:
    torso = body.torso()
    canvas.shade(torso, scaled(outfit.rgb, 1.06), scaled(outfit.rgb, 0.74), body.head.downlight, label)
    if outfit.pattern == "striped":
        for index in range(STRIPES):
            canvas.fill(body.stripe(index), stripe_colour(outfit.rgb))
    canvas.stroke(torso, scaled(outfit.rgb, INK), 1.0, closed=True, label=label)


def stripe_colour(shirt: Colour) -> Colour:
    """The second colour of a striped shirt: lighter on a dark one, darker on a light one."""
    return mixed(shirt, (255, 255, 255), 0.55) if sum(shirt) < 330 else scaled(shirt, 0.55)


def _draw_neck(canvas: Canvas, body: Body, outfit: Outfit, label: int) -> None:
    skin, unit = body.head.skin, body.unit
    opening = body.neckline(1.0)
    canvas.fill(opening, scaled(skin, 0.84), label)
    canvas.stroke(opening, scaled(outfit.rgb, 0.80), 0.16 * unit if outfit.collar else 0.07 * unit, closed=True)
    top = np.asarray(body.head.pose.centre) + np.array([0.0, 0.7 * unit])
    neck = capsule(top, body.joints["neck"] - np.array([0.0, 0.12 * unit]), (0.34 * unit, 0.36 * unit))
    canvas.shade(neck, scaled(skin, 0.70), scaled(skin, 0.92), (0.0, 1.0), label)


def _draw_arm(canvas: Canvas, body: Body, side: str, outfit: Outfit, label: int) -> None:
    shoulder, elbow, wrist = (body.joints[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist"))
    thick = ARM_RADIUS * body.unit
    skin, shirt = body.head.skin, scaled(outfit.rgb, 0.94)
    forearm = capsule(elbow, wrist, (0.84 * thick, 0.66 * thick))
    bare = shirt if outfit.long_sleeves else skin
    for shape, colour in ((forearm, bare), (capsule(shoulder, elbow, (1.08 * thick, 0.92 * thick)), shirt)):
        canvas.stroke(shape, scaled(colour, INK), 2.0, closed=True, label=label)
        canvas.shade(shape, scaled(colour, 1.05), scaled(colour, 0.78), body.head.downlight, label)


def _draw_hand(canvas: Canvas, body: Body, side: str, label: int) -> None:
    elbow, wrist = body.joints[f"{side}_elbow"], body.joints[f"{side}_wrist"]
    along = (wrist - elbow) / max(float(np.hypot(*(wrist - elbow))), 1e-6)
    hand = ellipse(wrist + 0.10 * body.unit * along, (0.25 * body.unit, 0.22 * body.unit), 0.0, 18)
    canvas.shade(hand, scaled(body.head.skin, 1.04), scaled(body.head.skin, 0.84), body.head.downlight, label)
    canvas.stroke(hand, scaled(body.head.skin, INK), 0.9, closed=True, label=label)


def draw_held_object(canvas: Canvas, body: Body, outfit: Outfit, label: int) -> None:
    """Paint the object above the holding hand."""
    if outfit.held is None:
        return
    hand = body.joints[f"{body.pose.holding}_wrist"]
    draw = {"ball": _ball, "box": _box, "cup": _cup, "book": _book, "flower": _flower}[outfit.held.kind]
    draw(canvas, hand, body, outfit.held.rgb, label)


def _ball(canvas: Canvas, hand: Points, body: Body, colour: Colour, label: int) -> None:
    radius = 0.50 * body.unit
    centre = hand - np.array([0.0, 0.40 * body.unit])
    _solid(canvas, ellipse(centre, (radius, radius), 0.0, 32), colour, body, label)
    glint = centre + radius * np.array([0.4 * body.light, -0.45])
    canvas.fill(ellipse(glint, (0.18 * radius, 0.18 * radius), 0.0, 12), mixed(colour, (255, 255, 255), 0.7))


def _box(canvas: Canvas, hand: Points, body: Body, colour: Colour, label: int) -> None:
    unit = body.unit
    _solid(
        canvas, hand + unit * np.array([[-0.5, -0.85], [0.5, -0.85], [0.5, 0.08], [-0.5, 0.08]]), colour, body, label
    )
    band = unit * np.array([[-0.09, -0.85], [0.09, -0.85], [0.09, 0.08], [-0.09, 0.08]])
    canvas.fill(hand + band, mixed(colour, (255, 255, 255), 0.6))


def _cup(canvas: Canvas, hand: Points, body: Body, colour: Colour, label: int) -> None:
    unit = body.unit
    loop = ellipse(hand + unit * np.array([0.40, -0.36]), (0.20 * unit, 0.22 * unit), 0.0, 16)
    canvas.stroke(loop, colour, 0.10 * unit, closed=True, label=label)
    _solid(
        canvas,
        hand + unit * np.array([[-0.38, -0.80], [0.38, -0.80], [0.28, 0.10], [-0.28, 0.10]]),
        colour,
        body,
        label,
    )
    canvas.fill(ellipse(hand + unit * np.array([0.0, -0.80]), (0.38 * unit, 0.10 * unit), 0.0, 20), scaled(colour, 0.5))


def _book(canvas: Canvas, hand: Points, body: Body, colour: Colour, label: int) -> None:
    unit = body.unit
    pages = unit * np.array([[-0.36, -0.92], [0.46, -0.92], [0.46, 0.06], [-0.36, 0.06]])
    _solid(canvas, hand + pages, (240, 234, 214), body, label)
    _solid(canvas, hand + pages + unit * np.array([-0.08, 0.06]), colour, body, label)
    title = unit * np.array([[-0.26, -0.66], [0.20, -0.66], [0.20, -0.50], [-0.26, -0.50]])
    canvas.fill(hand + title, mixed(colour, (255, 255, 255), 0.65))


def _flower(canvas: Canvas, hand: Points, body: Body, colour: Colour, label: int) -> None:
    unit = body.unit
    bloom = hand + unit * np.array([0.0, -0.85])
    canvas.stroke(np.stack([hand + np.array([0.0, 0.3 * unit]), bloom]), (52, 132, 60), 0.10 * unit, label=label)
    for turn in np.linspace(0.0, 2.0 * np.pi, 6, endpoint=False):
        petal = bloom + 0.24 * unit * np.array([np.cos(turn), np.sin(turn)])
        canvas.fill(ellipse(petal, (0.20 * unit, 0.20 * unit), 0.0, 14), colour, label)
        canvas.stroke(ellipse(petal, (0.20 * unit, 0.20 * unit), 0.0, 14), scaled(colour, 0.7), 0.6, closed=True)
    canvas.fill(ellipse(bloom, (0.17 * unit, 0.17 * unit), 0.0, 14), (250, 206, 70), label)


def _solid(canvas: Canvas, shape: Points, colour: Colour, body: Body, label: int) -> None:
    canvas.shade(shape, scaled(colour, 1.10), scaled(colour, 0.76), body.head.downlight, label)
    canvas.stroke(shape, scaled(colour, INK), 0.9, closed=True, label=label)
