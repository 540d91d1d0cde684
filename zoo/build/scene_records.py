"""Records of rendered scenes: their ground truth as JSON, captions in both forms, and references of the people."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mcpipe.world.captions import (
    attributes,
    describe_face,
    describe_person,
    describe_scene,
    describe_setting,
    trait_phrases,
)
from mcpipe.world.identities import GEOMETRY_RANGES, Identity
from mcpipe.world.scene import OBJECT_LABEL, RenderedFrame, Scene, mask_box, render_portrait, sample_scene
from mcpipe.world.setting import Framing
from mcpipe.world.shots import FRAMINGS
from zoo.build.crops import face_crop, square_left

REFERENCE = 84
"""Pixels of a reference's side."""

PORTRAIT = 160
PORTRAIT_SHARE = 0.5
"""References cut from portraits of the face pool's kind; the others come from an earlier frame of the same scene."""

REFERENCE_SCALES = (1.1, 1.9)
"""Sides of references in longer sides of the face's box."""

INVENTED = 3
"""Number of invented scenes for the same people, which serve as prompts."""

FAR = FRAMINGS["far"]


def record_of(scene: Scene, frame: RenderedFrame, framing: Framing, rng: np.random.Generator) -> dict:
    """Ground truth of a frame and of its square, as JSON."""
    left = square_left(frame, rng, framing)
    people = [person.identity for person in scene.people]
    mirrored = dataclasses.replace(scene, people=tuple(reversed(scene.people)))
    return {
        "left": left,
        "caption": describe_scene(scene),
        "mirrored_caption": describe_scene(mirrored),
        "people": [describe_person(person.identity, person.outfit) for person in scene.people],
        "traits": [describe_face(identity) for identity in people],
        "phrases": [list(trait_phrases(identity).values()) for identity in people],
        "attributes": [attributes(person.identity, person.outfit) for person in scene.people],
        "traits_vectors": [[round(value, 4) for value in traits_vector(identity)] for identity in people],
        "held": [_held_box(frame, seat, left) for seat in range(len(people))],
        "faces": [(person.face_box - [left, 0, left, 0]).round(1).tolist() for person in frame.people],
        "invented": [describe_scene(sample_scene(rng, people, framing=FAR)) for _ in range(INVENTED)],
    }


def settings_of(scene: Scene, rng: np.random.Generator, total: int) -> dict[str, list[str]]:
    """``total`` captions in the form "scene" of a scene and of its mirror image, and of invented scenes.

    Empty if ``total`` is 0.
    """
    if not total:
        return {}
    mirrored = dataclasses.replace(scene, people=tuple(reversed(scene.people)))
    scenes = {"settings": scene, "mirrored_settings": mirrored}
    people = [person.identity for person in scene.people]
    invented = [describe_setting(sample_scene(rng, people, framing=FAR), rng) for _ in range(INVENTED)]
    return {"invented_settings": invented} | {
        name: [describe_setting(variant, rng) for _ in range(total)] for name, variant in scenes.items()
    }


def traits_vector(identity: Identity) -> list[float]:
    """The lasting traits as numbers in about [-1, 1]: skin, hair and eyes (red, green, blue), then the geometry.

    The colour of invisible hair is 0.
    """
    hairless = identity.hair_cut == "bald" and identity.facial_hair == "none"
    hair = (0.0, 0.0, 0.0) if hairless else tuple(value / 127.5 - 1 for value in identity.hair_rgb)
    eyes = tuple(value / 127.5 - 1 for value in identity.eye_rgb)
    shape = [
        2 * (getattr(identity.geometry, name) - low) / (high - low) - 1 for name, (low, high) in GEOMETRY_RANGES.items()
    ]
    return [2 * identity.skin - 1, *hair, *eyes, *shape]


def _held_box(frame: RenderedFrame, seat: int, left: int) -> list[float] | None:
    """Box of a person's held object in the square, if it is visible."""
    box = mask_box(frame.labels == seat + 1 + OBJECT_LABEL)
    return None if box is None else (box - [left, 0, left, 0]).tolist()


def references_of(early: RenderedFrame, people: Sequence[Identity], rng: np.random.Generator) -> list[np.ndarray]:
    """One face crop of each person, from a portrait or from the earlier frame, with the person's mask."""
    crops = []
    for seat, identity in enumerate(people):
        alone = rng.random() < PORTRAIT_SHARE
        frame = render_portrait(identity, rng, PORTRAIT) if alone else early
        index = 0 if alone else seat
        mask = (frame.labels == index + 1).astype(np.uint8) * 255
        four = np.dstack([frame.rgb, mask])
        crops.append(face_crop(four, frame.people[index].face_box, float(rng.uniform(*REFERENCE_SCALES)), REFERENCE))
    return crops
