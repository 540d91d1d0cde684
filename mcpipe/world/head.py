"""Heads: an ellipsoid seen from any side, with the features of an identity painted on it.

Lengths on the head are in units of its radius, half the height from chin to crown; the head looks at the viewer at
yaw 0, turns towards the right of the picture with positive yaw and shows its back beyond `AWAY_YAW`.
"""

from dataclasses import dataclass

import numpy as np

from mcpipe.world.canvas import Canvas, Points, arc, curve, ellipse, mixed, rotated, scaled
from mcpipe.world.identities import Colour, Identity

AWAY_YAW = 1.6
"""Turn in radians beyond which nothing of the face can be seen."""

PROFILE_YAW = 1.0
"""Turn in radians beyond which the far half of the face is hidden and the face no longer counts as visible."""

DEPTH = 0.92
"""Half the depth of a head from the back to the bridge of the nose."""

INK = 0.55
"""Darkness of an outline against the surface it bounds."""

LIP: Colour = (186, 66, 72)
WHITE: Colour = (250, 250, 248)
PUPIL: Colour = (18, 16, 20)


@dataclass(frozen=True)
class HeadPose:
    """Where a head is and what it does; positions in pixels, angles in radians."""

    centre: tuple[float, float]
    radius: float
    yaw: float
    pitch: float
    roll: float
    smile: float
    """From -1 sad to 1 laughing."""

    blink: float
    """How far the eyes are closed, in [0, 1]."""

    light: float
    """Side from which light comes: -1 left, 1 right."""


class Head:
    """One identity's head in one pose: geometry only."""

    def __init__(self, identity: Identity, pose: HeadPose) -> None:
        """Work out what does not depend on the feature drawn."""
        self.identity, self.pose, self.shape = identity, pose, identity.geometry
        self.radius = pose.radius
        self.skin = identity.skin_rgb
        self._turn = _rotation(pose.yaw, pose.pitch, pose.roll)
        self.facing = self._turn @ np.array([0.0, 0.0, 1.0])
        self.away = abs(pose.yaw) > AWAY_YAW
        across = np.hypot(self.shape.face_width * np.cos(pose.yaw), DEPTH * np.sin(pose.yaw))
        self.half_width = float(across)
        self.downlight = (-0.8 * pose.light, 0.6)

    def at(self, x: float, y: float, lift: float = 1.0) -> Points:
        """The pixel of a place on the face, ``lift`` times as far from the middle of the head as its surface."""
        inside = 1.0 - (x / (1.02 * self.shape.face_width)) ** 2 - (y / 1.02) ** 2
        depth = DEPTH * lift * np.sqrt(max(inside, 0.02))
        return np.asarray(self.pose.centre) + self.radius * (self._turn @ np.array([x, y, depth]))[:2]

    def upright(self, points: Points) -> Points:
        """Pixels of places in the plane of the head's outline, which tilts with the head but does not turn."""
        return np.asarray(self.pose.centre) + self.radius * rotated(np.asarray(points, dtype=float), self.pose.roll)

    def ear(self, side: int) -> tuple[Points, float]:
        """The pixel of an ear (side -1 or 1 of the face's plane) and how far it comes forward of the head's middle."""
        place = self._turn @ np.array([side * 0.97 * self.shape.face_width, 0.05, -0.05])
        return np.asarray(self.pose.centre) + self.radius * place[:2], float(place[2])

    def eye(self, side: int) -> Points:
        """The pixel of an eye's centre."""
        return self.at(side * self.shape.eye_gap, self.shape.eye_height)

    def nose_tip(self) -> Points:
        """The pixel of the tip of the nose."""
        return self.at(0.0, self.shape.eye_height + self.shape.nose_length, lift=1.12)

    def mouth_corner(self, side: int) -> Points:
        """The pixel of a corner of the mouth."""
        return self.at(side * self.shape.mouth_width, self.shape.mouth_height - 0.07 * self.pose.smile)

    def outline(self, low: float = 0.0, high: float = 2.0 * np.pi, points: int = 60) -> Points:
        """The head's silhouette between two angles, clockwise from the right."""
        turn = np.linspace(low, high, points)
        x, y = self.half_width * np.cos(turn), np.sin(turn)
        below = np.clip(y, 0.0, 1.0)
        x = x * (1.0 - 0.5 * (1.0 - self.shape.jaw) * below**1.5) + 0.10 * self.facing[0] * below
        return self.upright(np.stack([x, y], axis=1))

    def face_box(self) -> np.ndarray:
        """The face from hairline to chin, (4,) x0 y0 x1 y1 in pixels, not clipped to the picture."""
        rim = self.outline()
        left, top = rim.min(axis=0)
        right, bottom = rim.max(axis=0)
        return np.array([left, top + 0.30 * self.radius, right, bottom])

    def landmarks(self) -> np.ndarray:
        """Eyes, nose and mouth corners (5, 2) in InsightFace's order, the picture's left first."""
        return np.stack([self.eye(-1), self.eye(1), self.nose_tip(), self.mouth_corner(-1), self.mouth_corner(1)])


def draw_head(canvas: Canvas, head: Head, label: int) -> None:
    """Paint everything in front of the neck: ears, skin, features, beard, glasses and front hair."""
    for side in (-1, 1):
        _draw_ear(canvas, head, side, label)
    skin = head.skin
    rim = head.outline()
    canvas.shade(rim, scaled(skin, 1.06), scaled(skin, 0.80), head.downlight, label)
    canvas.stroke(rim, scaled(skin, INK), 0.9, closed=True, label=label)
    if head.away:
        return
    _draw_cheeks(canvas, head)
    if head.identity.facial_hair == "beard":
        _draw_beard(canvas, head, label)
    for side in (-1, 1):
        _draw_eye(canvas, head, side)
        _draw_brow(canvas, head, side)
    _draw_mouth(canvas, head)
    if head.identity.facial_hair == "moustache":
        _draw_moustache(canvas, head)
    _draw_nose(canvas, head)
    if head.identity.glasses is not None:
        _draw_glasses(canvas, head, head.identity.glasses)


def _draw_ear(canvas: Canvas, head: Head, side: int, label: int) -> None:
    centre, forward = head.ear(side)
    if forward < -0.55:
        return
    size = head.shape.ear_size * head.radius
    shape = ellipse(centre, (0.75 * size, 1.25 * size), head.pose.roll, 18)
    canvas.fill(shape, scaled(head.skin, 0.90), label)
    canvas.stroke(shape, scaled(head.skin, INK), 0.8, closed=True, label=label)


def _draw_cheeks(canvas: Canvas, head: Head) -> None:
    shape = head.shape
    blush = mixed(head.skin, (236, 104, 96), 0.22)
    for side in (-1, 1):
        centre = head.at(side * 0.56 * shape.face_width, shape.eye_height + 0.34)
        canvas.fill(ellipse(centre, (0.13 * head.radius, 0.09 * head.radius), head.pose.roll, 16), blush)
        if shape.freckles > 0:
            spot = mixed(head.skin, (120, 60, 30), 0.35 + 0.35 * shape.freckles)
            for x, y in ((-0.10, -0.05), (0.02, 0.06), (0.11, -0.06)):
                place = head.at(side * 0.50 * shape.face_width + x, shape.eye_height + 0.30 + y)
                canvas.fill(ellipse(place, (0.028 * head.radius, 0.028 * head.radius), 0.0, 8), spot)


def _draw_eye(canvas: Canvas, head: Head, side: int) -> None:
    shape, roll = head.shape, head.pose.roll
    centre, size = head.eye(side), shape.eye_size * head.radius
    narrow = max(0.45, float(head.facing[2]))
    tall = size * max(0.12, 1.0 - head.pose.blink)
    canvas.fill(ellipse(centre, (1.25 * size * narrow, tall), roll, 20), WHITE)
    iris = centre + 0.30 * size * head.facing[:2]
    canvas.fill(ellipse(iris, (0.72 * size * narrow, min(0.78 * size, tall)), roll, 18), head.identity.eye_rgb)
    canvas.fill(ellipse(iris, (0.36 * size * narrow, min(0.38 * size, tall)), roll, 12), PUPIL)
    if head.pose.blink < 0.5:
        glint = iris + size * np.array([0.25 * head.pose.light, -0.28])
        canvas.fill(ellipse(glint, (0.17 * size, 0.17 * size), 0.0, 8), WHITE)
    lid = arc(centre, (1.28 * size * narrow, 1.05 * tall), (np.pi, 2.0 * np.pi), roll, 12)
    canvas.stroke(lid, (46, 34, 34), max(0.7, 0.035 * head.radius))


def _draw_brow(canvas: Canvas, head: Head, side: int) -> None:
    shape, identity = head.shape, head.identity
    level = shape.eye_height - shape.eye_size - 0.11
    droop = 0.10 * shape.brow_tilt
    inner = head.at(side * (shape.eye_gap - 0.16), level - droop)
    middle = head.at(side * shape.eye_gap, level - 0.05)
    outer = head.at(side * (shape.eye_gap + 0.16), level + droop)
    colour = scaled(head.skin, 0.55) if identity.hair_cut == "bald" else scaled(identity.hair_rgb, 0.72)
    canvas.stroke(curve(inner, middle, outer), colour, 2.0 * shape.brow_thickness * head.radius)


def _draw_nose(canvas: Canvas, head: Head) -> None:
    shape = head.shape
    tip, bridge = head.nose_tip(), head.at(0.0, shape.eye_height + 0.04)
    width = shape.nose_width * head.radius
    across = rotated(np.array([[width, 0.0]]), head.pose.roll)[0]
    canvas.fill(np.stack([bridge, tip + across, tip - across]), scaled(head.skin, 0.90))
    canvas.fill(ellipse(tip, (width, 0.66 * width), head.pose.roll, 16), scaled(head.skin, 0.84))
    below = arc(tip, (width, 0.66 * width), (0.1 * np.pi, 0.9 * np.pi), head.pose.roll, 8)
    canvas.stroke(below, scaled(head.skin, 0.62), max(0.7, 0.035 * head.radius))


def _draw_mouth(canvas: Canvas, head: Head) -> None:
    shape, smile = head.shape, head.pose.smile
    left, right = head.mouth_corner(-1), head.mouth_corner(1)
    middle = head.at(0.0, shape.mouth_height + 0.08 * smile)
    lip = mixed(LIP, head.skin, 0.25)
    line = curve(left, middle, right)
    if smile > 0.4:
        lower = head.at(0.0, shape.mouth_height + 0.08 * smile + 0.22 * (smile - 0.2))
        opened = np.concatenate([line, curve(right, lower, left)])
        canvas.fill(opened, (120, 34, 40))
        teeth = head.at(0.0, shape.mouth_height + 0.08 * smile + 0.09 * (smile - 0.2))
        canvas.fill(np.concatenate([line, curve(right, teeth, left)]), WHITE)
        canvas.stroke(opened, lip, max(0.8, 0.8 * shape.lip_thickness * head.radius), closed=True)
    else:
        canvas.stroke(line, lip, max(1.0, 2.0 * shape.lip_thickness * head.radius))


def _draw_beard(canvas: Canvas, head: Head, label: int) -> None:
    shape = head.shape
    jaw = head.outline(0.02 * np.pi, 0.98 * np.pi, 30)
    upper = [
        head.at(x * shape.face_width, (shape.mouth_height - 0.16) * (1.0 - 0.75 * abs(x) ** 2.5))
        for x in np.linspace(-0.93, 0.93, 15)
    ]
    hair = scaled(head.identity.hair_rgb, 0.92)
    canvas.shade(np.concatenate([jaw, upper]), scaled(hair, 1.08), scaled(hair, 0.76), head.downlight, label)
    canvas.stroke(jaw, scaled(hair, INK), 0.9, label=label)


def _draw_moustache(canvas: Canvas, head: Head) -> None:
    shape = head.shape
    level = 0.5 * (shape.eye_height + shape.nose_length + shape.mouth_height) + 0.03
    wide = shape.mouth_width + 0.06
    top = curve(
        head.at(-wide, level + 0.10),
        head.at(-0.5 * wide, level - 0.06),
        head.at(0.0, level - 0.02),
        head.at(0.5 * wide, level - 0.06),
        head.at(wide, level + 0.10),
    )
    low = curve(
        head.at(wide, level + 0.10),
        head.at(0.5 * wide, level + 0.09),
        head.at(0.0, level + 0.05),
        head.at(-0.5 * wide, level + 0.09),
        head.at(-wide, level + 0.10),
    )
    canvas.fill(np.concatenate([top, low]), scaled(head.identity.hair_rgb, 0.85))


def _draw_glasses(canvas: Canvas, head: Head, colour: Colour) -> None:
    size = head.radius * (0.12 + 0.9 * head.shape.eye_size)
    thick = max(1.1, 0.065 * head.radius)
    narrow = max(0.6, float(head.facing[2]))
    rims = []
    for side in (-1, 1):
        turn = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
        power = 1.0 if head.identity.round_glasses else 0.55
        x = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** power
        y = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** power
        rim = head.eye(side) + rotated(size * np.stack([1.08 * narrow * x, 0.95 * y], axis=1), head.pose.roll)
        canvas.stroke(rim, colour, thick, closed=True)
        rims.append(rim)
        if head.ear(side)[1] > -0.5:
            canvas.stroke(np.stack([rim[12 if side < 0 else 0], head.ear(side)[0]]), colour, 0.8 * thick)
    canvas.stroke(np.stack([rims[0][0], rims[1][12]]), colour, thick)


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Turn, then nod, then tilt; y points down and z towards the viewer."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return tilt @ nod @ turn
