"""Rendering of a scene at any time, with the ground truth of everybody in it."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from mcpipe.world.attributes.held import OBJECT_LABEL
from mcpipe.world.backgrounds import PLACES, backdrop
from mcpipe.world.body import Body, BodyPose
from mcpipe.world.canvas import Canvas
from mcpipe.world.figures import paint_person
from mcpipe.world.head import HeadPose
from mcpipe.world.setting import Light, Person, Scene, Sway, sample_scene
from mcpipe.world.traits import Identity
from mcpipe.world.truth import PersonTruth, mask_box, person_truth

__all__ = [
    "OBJECT_LABEL", "PLACES", "PersonTruth", "RenderedFrame", "Scene", "Sway", "mask_box", "render", "render_portrait",
    "render_rgb", "sample_scene",
]  # fmt: skip

PORTRAIT_HEAD_HEIGHT = 0.52
"""Chin to crown in a portrait, in frame heights."""

PORTRAIT_CROWN = 0.17
"""Height of the crown below the top of a portrait, in frame heights."""

PORTRAIT_CALM = 0.35
"""Share of a scene's pose that a sitter keeps."""

PORTRAIT_SMILE = 0.3
"""Added to a sitter's smile."""

BLINK_PERIOD_S = 3.1
"""Seconds between two blinks; everybody blinks at a moment of their own."""

BLINK_S = 0.12
"""Seconds from open eyes to shut ones."""


@dataclass(frozen=True)
class RenderedFrame:
    """An image with its truth."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""

    labels: np.ndarray
    """(H, W) uint8: 0 background, i + 1 person i, i + 101 the object in person i's hand."""

    people: tuple[PersonTruth, ...]


def render(scene: Scene, time_s: float, width: int, height: int) -> RenderedFrame:
    """The frame of a scene at a time, ``width`` x ``height`` pixels."""
    canvas = Canvas(width, height, backdrop(scene.background, width, height))
    bodies = _painted(canvas, scene, time_s)
    labels = canvas.labels()
    people = tuple(person_truth(bodies[index], labels, index + 1) for index in range(len(scene.people)))
    return RenderedFrame(rgb=_exposed(canvas.picture(), scene.light, time_s), labels=labels, people=people)


def render_rgb(scene: Scene, time_s: float, width: int, height: int) -> np.ndarray:
    """The image of `render` (H, W, 3) uint8 without its truth, in about four fifths of the time."""
    canvas = Canvas(width, height, backdrop(scene.background, width, height), labelled=False)
    _painted(canvas, scene, time_s)
    return _exposed(canvas.picture(), scene.light, time_s)


def _painted(canvas: Canvas, scene: Scene, time_s: float) -> dict[int, Body]:
    """Everybody of a scene painted from back to front; returns the joints by index of the person."""
    bodies: dict[int, Body] = {}
    for index in scene.depth_order:
        person = scene.people[index]
        pose = pose_at(person, time_s, (canvas.width, canvas.height), scene.light.side)
        bodies[index] = paint_person(canvas, person.identity, person.outfit, pose, index + 1)
    return bodies


def render_portrait(identity: Identity, rng: np.random.Generator, size: int) -> RenderedFrame:
    """A head-and-shoulders image of one person, ``size`` x ``size`` pixels, from the front with empty hands."""
    scene = sample_scene(rng, [identity])
    (person,) = scene.people
    calm = {name: Sway(PORTRAIT_CALM * sway.rest, 0.0, 0.0, 0.0) for name, sway in person.sways.items()}
    calm["smile"] = Sway(PORTRAIT_SMILE + calm["smile"].rest, 0.0, 0.0, 0.0)
    outfit = person.outfit.changed(held=None)
    sitter = Person(identity, outfit, 0.0, PORTRAIT_CROWN, PORTRAIT_HEAD_HEIGHT, calm, person.arms, person.holding)
    return render(Scene((sitter,), (0,), scene.background, scene.light), 0.5 * BLINK_PERIOD_S, size, size)


def pose_at(person: Person, time_s: float, size: tuple[int, int], light: float) -> tuple[HeadPose, BodyPose]:
    """What head and body of a person do at a time, in a frame of ``size`` (width, height) pixels."""
    width, height = size
    at = {name: sway.at(time_s) for name, sway in person.sways.items()}
    radius = 0.5 * person.head_height * height
    head = HeadPose(
        centre=(0.5 * width + (person.x + at["x"]) * height, (person.crown + at["y"]) * height + radius),
        radius=radius,
        yaw=at["yaw"],
        pitch=at["pitch"],
        roll=at["roll"],
        smile=float(np.clip(at["smile"], -1.0, 1.0)),
        blink=_blink(time_s + person.sways["yaw"].phase),
        light=light,
    )
    arms = {side: (upper.at(time_s), elbow.at(time_s)) for side, (upper, elbow) in person.arms.items()}
    return head, BodyPose(lean=at["lean"], arms=arms, holding=person.holding)


def _blink(time_s: float) -> float:
    """How far eyes are closed: shut for a moment once per period."""
    return float(max(0.0, 1.0 - abs(time_s % BLINK_PERIOD_S - BLINK_S) / BLINK_S))


def _exposed(rgb: np.ndarray, light: Light, time_s: float) -> np.ndarray:
    """The image under the scene's light, with the noise of that moment."""
    rng = np.random.default_rng([light.seed, round(time_s * 1000)])
    noise = rng.standard_normal(rgb.shape, dtype=np.float32)
    noise *= np.float32(light.noise)
    return cv2.add(cv2.LUT(rgb, _exposure(light.gain, light.tint)), noise, dtype=cv2.CV_8U)


@lru_cache(maxsize=64)
def _exposure(gain: float, tint: tuple[float, float, float]) -> np.ndarray:
    """What becomes of every 8-bit step of each channel, (1, 256, 3) float32."""
    return np.arange(256, dtype=np.float32)[None, :, None] * (gain * np.array(tint)).astype(np.float32)
