"""The close world: ranges, room for faces, look-alikes, and that no fixed place of the picture is a face."""

from collections import Counter

import numpy as np
import pytest
from imports import ROOT

from mcpipe.core.order import reference_order
from mcpipe.core.params import read_params
from mcpipe.curate.samples import crop_masks, face_masks
from mcpipe.curate.windows import square_window
from mcpipe.world.clips import KINDS, WorldParams
from mcpipe.world.head import Head
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.lookalikes import CHANGES, differences, look_alike
from mcpipe.world.scene import pose_at, render, render_portrait, sample_scene
from mcpipe.world.setting import CLOSE, FAR

GRID, SIZE = 12, 96
LOW, HIGH = 0.36, 0.50
VISIBLE = 0.7
"""Share of a face that can be seen in a close two-shot, at least (docs/world.md)."""


def scene_of(number, framing, count=2):
    rng = world_rng("tests of close shots", number)
    return sample_scene(rng, [sample_identity(rng) for _ in range(count)], framing=framing)


def face_tokens(scene, width, height):
    """Where the faces are in the training target, as the pipeline cuts it: (2, GRID * GRID) bool."""
    frame = render(scene, 1.0, width, height)
    bodies = np.stack([frame.labels == place + 1 for place in range(2)])
    faces = face_masks(bodies, np.stack([person.face_box for person in frame.people]))
    window = square_window(np.stack([person.box for person in frame.people]), height, width)
    cut = crop_masks(faces, window, (SIZE, SIZE)).reshape(2, GRID, SIZE // GRID, GRID, SIZE // GRID)
    return cut.mean(axis=(2, 4)).reshape(2, -1) >= 0.5


def constant_map_inside(tokens):
    """Mean share inside the own face of a map per slot that is the same for all pictures.

    The map is the mean of the normalised masks of the first two thirds, which of all constant maps has the least
    cross-entropy; it is judged on the last third. ``tokens`` is (pictures, slots, tokens).
    """
    seen = tokens[tokens.any(axis=2).all(axis=1)].astype(float)
    fitted, judged = np.split(seen, [2 * len(seen) // 3])
    maps = (fitted / fitted.sum(axis=2, keepdims=True)).mean(axis=0)
    return float((maps * judged).sum(axis=2).mean())


def test_a_constant_map_per_slot_is_no_face_of_the_close_world_but_is_one_of_the_far_world():
    close = np.stack([face_tokens(scene_of(n, CLOSE), 120, 120)[reference_order(2, 0, n)] for n in range(120)])
    far = np.stack([face_tokens(scene_of(n, FAR), 160, 120) for n in range(36)])
    assert constant_map_inside(close) <= 0.35
    assert constant_map_inside(far) >= 0.65


def test_five_hundred_close_scenes_stay_in_their_ranges_with_every_face_in_view():
    ratios, middles, spacings, crowns = [], [], [], []
    for number in range(500):
        scene = scene_of(number, CLOSE)
        heights = np.array([person.head_height for person in scene.people])
        places = np.array([person.x for person in scene.people])
        assert LOW <= heights.min() <= heights.max() <= HIGH
        ratios.append(heights.max() / heights.min())
        middles.append(places.mean())
        spacings.append(float(np.diff(places)[0] / (0.5 * heights.mean())))
        crowns += [person.crown for person in scene.people]
        for person in scene.people:
            face = Head(person.identity, pose_at(person, 0.5, (100, 100), scene.light.side)[0]).face_box()
            assert -0.5 <= face.min() <= face.max() <= 100.5, number
        if number % 10 == 0:
            assert min(person.face_visible for person in render(scene, 0.5, 80, 80).people) >= VISIBLE, number
    for values, low, high in ((ratios, 1, 1.4), (middles, -0.15, 0.15), (spacings, 1.95, 2.9), (crowns, 0.05, 0.3)):
        assert low - 1e-9 <= min(values) < max(values) <= high + 1e-9
        assert max(values) - min(values) > 0.6 * (high - low)


def test_what_somebody_holds_in_a_close_shot_is_to_be_seen():
    held = [
        (frame.labels == 101 + place).sum()
        for number in range(24)
        for frame in [render(scene_of(number, CLOSE), 0.5, 240, 240)]
        for place, person in enumerate(frame.people)
        if person.outfit.held is not None
    ]
    assert len(held) > 15
    assert np.mean(np.array(held) > 30) > 0.9


def test_look_alikes_differ_in_one_or_two_lasting_traits_and_in_the_picture():
    changed, numbers = Counter(), Counter()
    for number in range(300):
        rng = world_rng("tests of look-alikes", number)
        person = sample_identity(rng)
        other = look_alike(rng, person)
        differing = differences(person, other)
        assert differing <= CHANGES.keys()
        assert 1 <= len(differing) <= 2
        assert not differences(person, person)
        changed.update(differing)
        numbers[len(differing)] += 1
        if number < 20:
            portraits = [render_portrait(who, world_rng("tests", number), 64).rgb for who in (person, other)]
            assert np.abs(portraits[0].astype(int) - portraits[1]).max() > 30
    assert min(changed[name] for name in CHANGES) > 60
    assert 100 < numbers[1] < 200


@pytest.fixture(scope="module")
def params():
    return read_params(ROOT / "params.yaml", "world", WorldParams).model_copy(update={"shots": "close"})


def cast(params, number):
    (shot,) = KINDS["good"](world_rng("clips", 1, number), number, params)(0.0)
    return [person.identity for person in shot[1].people]


def test_a_share_of_the_pairs_of_clips_are_look_alikes(params):
    for share in (0.0, 0.5, 1.0):
        pairs = [cast(params.model_copy(update={"alike": share}), number) for number in range(200)]
        alike = np.mean([differences(*pair) <= CHANGES.keys() for pair in pairs])
        assert abs(alike - share) <= (0.1 if share == 0.5 else 0.0), share
