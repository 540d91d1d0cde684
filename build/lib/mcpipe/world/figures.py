"""People painted whole, from back to front, with every attribute at its place in the order."""

import numpy as np

from mcpipe.world.body import ARM_RADIUS, Body, BodyPose
from mcpipe.world.canvas import Canvas, arc, capsule, curve, ellipse, rotated
from mcpipe.world.colours import Colour, mixed, scaled
from mcpipe.world.discovery import Place, painters
from mcpipe.world.head import INK, WHITE, Head, HeadPose
from mcpipe.world.traits import Identity, Outfit

LIP: Colour = (186, 66, 72)
THROAT: Colour = (120, 34, 40)
BLUSH: Colour = (236, 104, 96)


def paint_person(
    canvas: Canvas, identity: Identity, outfit: Outfit, pose: tuple[HeadPose, BodyPose], label: int
) -> Body:
    """Paint one person under ``label``; returns the joints."""
    body = Body(Head(identity, pose[0]), pose[1], outfit)
    _paint_attributes(canvas, body, label, "behind")
    _paint_trunk(canvas, body, label)
    _paint_neck(canvas, body, label)
    for side in ("right", "left"):
        _paint_arm(canvas, body, side, label)
        if side == body.pose.holding:
            _paint_attributes(canvas, body, label, "hand")
        _paint_hand(canvas, body, side, label)
    _paint_bare_head(canvas, body.head, label)
    if not body.head.away:
        _paint_face(canvas, body, label)
    _paint_attributes(canvas, body, label, "hair", "top")
    return body


def _paint_attributes(canvas: Canvas, body: Body, label: int, *places: Place) -> None:
    for place in places:
        for paint in painters(place):
            paint(canvas, body, label)


def _paint_bare_head(canvas: Canvas, head: Head, label: int) -> None:
    for side in (-1, 1):
        _paint_ear(canvas, head, side, label)
    rim = head.outline()
    canvas.shade(rim, scaled(head.skin, 1.06), scaled(head.skin, 0.80), head.downlight, label)
    canvas.stroke(rim, scaled(head.skin, INK), 0.9, closed=True, label=label)


def _paint_face(canvas: Canvas, body: Body, label: int) -> None:
    _paint_cheeks(canvas, body.head)
    _paint_attributes(canvas, body, label, "skin", "jaw", "eyes", "brows")
    _paint_mouth(canvas, body.head)
    _paint_attributes(canvas, body, label, "lip")
    _paint_nose(canvas, body.head)
    _paint_attributes(canvas, body, label, "eyewear")


def _paint_trunk(canvas: Canvas, body: Body, label: int) -> None:
    torso, outfit = body.torso(), body.outfit
    canvas.shade(torso, scaled(outfit.rgb, 1.06), scaled(outfit.rgb, 0.74), body.head.downlight, label)
    _paint_attributes(canvas, body, label, "shirt")
    canvas.stroke(torso, scaled(outfit.rgb, INK), 1.0, closed=True, label=label)


def _paint_neck(canvas: Canvas, body: Body, label: int) -> None:
    skin, outfit, unit = body.head.skin, body.outfit, body.unit
    opening = body.neckline()
    canvas.fill(opening, scaled(skin, 0.84), label)
    canvas.stroke(opening, scaled(outfit.rgb, 0.80), 0.16 * unit if outfit.collar else 0.07 * unit, closed=True)
    top = np.asarray(body.head.pose.centre) + np.array([0.0, 0.7 * unit])
    neck = capsule(top, body.joints["neck"] - np.array([0.0, 0.12 * unit]), (0.34 * unit, 0.36 * unit))
    canvas.shade(neck, scaled(skin, 0.70), scaled(skin, 0.92), (0.0, 1.0), label)


def _paint_arm(canvas: Canvas, body: Body, side: str, label: int) -> None:
    shoulder, elbow, wrist = (body.joints[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist"))
    thick = ARM_RADIUS * body.unit
    skin, shirt = body.head.skin, scaled(body.outfit.rgb, 0.94)
    forearm = capsule(elbow, wrist, (0.84 * thick, 0.66 * thick))
    bare = shirt if body.outfit.long_sleeves else skin
    for shape, colour in ((forearm, bare), (capsule(shoulder, elbow, (1.08 * thick, 0.92 * thick)), shirt)):
        canvas.stroke(shape, scaled(colour, INK), 2.0, closed=True, label=label)
        canvas.shade(shape, scaled(colour, 1.05), scaled(colour, 0.78), body.head.downlight, label)


def _paint_hand(canvas: Canvas, body: Body, side: str, label: int) -> None:
    elbow, wrist = body.joints[f"{side}_elbow"], body.joints[f"{side}_wrist"]
    along = (wrist - elbow) / max(float(np.hypot(*(wrist - elbow))), 1e-6)
    hand = ellipse(wrist + 0.10 * body.unit * along, (0.25 * body.unit, 0.22 * body.unit), 0.0, 18)
    canvas.shade(hand, scaled(body.head.skin, 1.04), scaled(body.head.skin, 0.84), body.head.downlight, label)
    canvas.stroke(hand, scaled(body.head.skin, INK), 0.9, closed=True, label=label)


def _paint_ear(canvas: Canvas, head: Head, side: int, label: int) -> None:
    centre, forward = head.ear(side)
    if forward < -0.55:
        return
    size = head.shape.ear_size * head.radius
    shape = ellipse(centre, (0.75 * size, 1.25 * size), head.pose.roll, 18)
    canvas.fill(shape, scaled(head.skin, 0.90), label)
    canvas.stroke(shape, scaled(head.skin, INK), 0.8, closed=True, label=label)


def _paint_cheeks(canvas: Canvas, head: Head) -> None:
    shape = head.shape
    blush = mixed(head.skin, BLUSH, 0.22)
    for side in (-1, 1):
        centre = head.at(side * 0.56 * shape.face_width, shape.eye_height + 0.34)
        canvas.fill(ellipse(centre, (0.13 * head.radius, 0.09 * head.radius), head.pose.roll, 16), blush)


def _paint_nose(canvas: Canvas, head: Head) -> None:
    shape = head.shape
    tip, bridge = head.nose_tip(), head.at(0.0, shape.eye_height + 0.04)
    width = shape.nose_width * head.radius
    across = rotated(np.array([[width, 0.0]]), head.pose.roll)[0]
    canvas.fill(np.stack([bridge, tip + across, tip - across]), scaled(head.skin, 0.90))
    canvas.fill(ellipse(tip, (width, 0.66 * width), head.pose.roll, 16), scaled(head.skin, 0.84))
    below = arc(tip, (width, 0.66 * width), (0.1 * np.pi, 0.9 * np.pi), head.pose.roll, 8)
    canvas.stroke(below, scaled(head.skin, 0.62), max(0.7, 0.035 * head.radius))


def _paint_mouth(canvas: Canvas, head: Head) -> None:
    shape, smile = head.shape, head.pose.smile
    left, right = head.mouth_corner(-1), head.mouth_corner(1)
    middle = head.at(0.0, shape.mouth_height + 0.08 * smile)
    lip = mixed(LIP, head.skin, 0.25)
    line = curve(left, middle, right)
    if smile > 0.4:
        lower = head.at(0.0, shape.mouth_height + 0.08 * smile + 0.22 * (smile - 0.2))
        opened = np.concatenate([line, curve(right, lower, left)])
        canvas.fill(opened, THROAT)
        teeth = head.at(0.0, shape.mouth_height + 0.08 * smile + 0.09 * (smile - 0.2))
        canvas.fill(np.concatenate([line, curve(right, teeth, left)]), WHITE)
        canvas.stroke(opened, lip, max(0.8, 0.8 * shape.lip_thickness * head.radius), closed=True)
    else:
        canvas.stroke(line, lip, max(1.0, 2.0 * shape.lip_thickness * head.radius))
