"""Heads: an ellipsoid from any viewpoint, and the places of features on it.

Lengths on the head are in units of its radius, half the height from chin to crown; the head looks at the viewer at
yaw 0, turns towards the right of the image with positive yaw and shows its back beyond `AWAY_YAW`.
"""

import math
from dataclasses import dataclass

import numpy as np

from mcpipe.world.attributes.skin import skin_rgb
from mcpipe.world.canvas import Points, rotated, steps
from mcpipe.world.colours import Colour
from mcpipe.world.traits import Identity

AWAY_YAW = 1.6
"""Turn in radians beyond which no part of the face is visible."""

PROFILE_YAW = 1.0
"""Turn in radians beyond which the far half of the face is hidden and the face no longer counts as visible."""

DEPTH = 0.92
"""Half the depth of a head from the back to the bridge of the nose."""

INK = 0.55
"""Darkness of an outline against the surface it bounds."""

WHITE: Colour = (250, 250, 248)


@dataclass(frozen=True)
class HeadPose:
    """Place and pose of a head; positions in pixels, angles in radians."""

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
        self.skin = skin_rgb(identity.skin)
        turn = _rotation(pose.yaw, pose.pitch, pose.roll)
        self.facing = turn @ np.array([0.0, 0.0, 1.0])
        self._turn: list[list[float]] = turn.tolist()
        self._reach = 1.02 * self.shape.face_width
        self.away = abs(pose.yaw) > AWAY_YAW
        across = np.hypot(self.shape.face_width * np.cos(pose.yaw), DEPTH * np.sin(pose.yaw))
        self.half_width = float(across)
        self.downlight = (-0.8 * pose.light, 0.6)

    def at(self, x: float, y: float, lift: float = 1.0) -> Points:
        """The pixel of a place on the face, ``lift`` times as far from the middle of the head as its surface."""
        inside = 1.0 - (x / self._reach) ** 2 - (y / 1.02) ** 2
        return self._seen_at(x, y, DEPTH * lift * math.sqrt(max(inside, 0.02)))

    def _seen_at(self, x: float, y: float, z: float) -> Points:
        """The pixel of a point in the head's own axes."""
        (left, top), (across, down, _) = self.pose.centre, self._turn
        return np.array(
            [
                left + self.radius * (across[0] * x + across[1] * y + across[2] * z),
                top + self.radius * (down[0] * x + down[1] * y + down[2] * z),
            ]
        )

    def upright(self, points: Points) -> Points:
        """Pixels of places in the plane of the head's outline, which tilts with the head but does not turn."""
        return self.pose.centre + self.radius * rotated(np.asarray(points, dtype=float), self.pose.roll)

    def ear(self, side: int) -> tuple[Points, float]:
        """The pixel of an ear (side -1 or 1 of the face's plane) and how far it comes forward of the head's middle."""
        x, y, z = side * 0.97 * self.shape.face_width, 0.05, -0.05
        forward = self._turn[2]
        return self._seen_at(x, y, z), forward[0] * x + forward[1] * y + forward[2] * z

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
        turn = steps(low, high, points)
        x, y = self.half_width * np.cos(turn), np.sin(turn)
        below = np.clip(y, 0.0, 1.0)
        x = x * (1.0 - 0.5 * (1.0 - self.shape.jaw) * below**1.5) + 0.10 * self.facing[0] * below
        return self.upright(np.stack([x, y], axis=1))

    def face_box(self) -> np.ndarray:
        """The face from hairline to chin, (4,) x0 y0 x1 y1 in pixels, not clipped to the image."""
        rim = self.outline()
        left, top = rim.min(axis=0)
        right, bottom = rim.max(axis=0)
        return np.array([left, top + 0.30 * self.radius, right, bottom])

    def landmarks(self) -> np.ndarray:
        """Eyes, nose and mouth corners (5, 2) in InsightFace's order, the image's left first."""
        return np.stack([self.eye(-1), self.eye(1), self.nose_tip(), self.mouth_corner(-1), self.mouth_corner(1)])


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Turn, then nod, then tilt; y points down and z towards the viewer."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return tilt @ nod @ turn
