"""Targets of several shapes: which shape a clip gets, and what is cut with it."""

import numpy as np
import pytest
from record_fixtures import frame_pair

from mcpipe.core.records import RejectionError
from mcpipe.core.schemas.curation import ClipCaption, ClipPeople, VerifiedIdentity
from mcpipe.core.sizes import size_of
from mcpipe.curate.buckets import everyone_window, largest, shapes_of, target_frame
from mcpipe.curate.windows import Window, body_shares, target_window
from mcpipe.steps.samples import sample_of

SHAPES = (112, 80), (128, 72), (80, 112)
APART, TOGETHER = ((10, 90), (130, 170)), ((90, 130), (125, 165))
"""Spans of two people in a frame of 178 x 100 pixels, left to right."""


def people(spans, height=100, width=178, top=10):
    masks = np.zeros((2, height, width), bool)
    for mask, (left, right) in zip(masks, spans, strict=True):
        mask[top:, left:right] = True
    bodies = np.array([[left, top, right, height] for left, right in spans], np.float32)
    faces = np.array([[(a + b) / 2 - 8, top, (a + b) / 2 + 8, top + 20] for a, b in spans], np.float32)
    return masks, bodies, faces


def test_without_buckets_the_target_is_the_square():
    assert shapes_of("square", ["112x80"]) == ()
    assert shapes_of("buckets", ["112x80", "80x112"]) == ((112, 80), (80, 112))
    for spans in (APART, TOGETHER):
        for crop in ("everyone", "faces"):
            expected = target_window(*people(spans), crop, 0.3)
            assert target_frame(*people(spans), crop, 0.3, ()) == (expected, None)


def test_the_shape_is_that_of_the_smallest_rectangle_that_holds_everybody():
    window, shape = target_frame(*people(APART), "everyone", 0.5, SHAPES)
    assert shape == (128, 72), "160 x 90 pixels of people in a frame of 16:9, which no square inside it holds"
    assert body_shares(people(APART)[0], window).tolist() == [1, 1]
    assert window.x >= 0
    assert window.x + window.width <= 178
    assert target_frame(*people(TOGETHER), "everyone", 0.5, SHAPES)[1] is None, "75 x 90 are nearest to the square"
    upright = people(((40, 70), (72, 100)), height=240, width=178, top=60)
    window, shape = target_frame(*upright, "everyone", 0.5, SHAPES)
    assert shape == (80, 112)
    areas = [
        each.width * each.height for each in (everyone_window(upright[1], 240, 178, s) for s in (None, *SHAPES)) if each
    ]
    assert window.width * window.height == min(areas)


def test_windows_have_their_shape_and_lie_inside_the_frame():
    random = np.random.default_rng(0)
    for _ in range(200):
        height, width = (int(side) for side in random.integers(90, 400, 2))
        corners = np.sort(random.uniform(0, (width, height), (2, 2)), axis=0)
        box = corners.reshape(1, 4).astype(np.float32)
        for shape in SHAPES:
            window = everyone_window(box, height, width, shape)
            scale = min(width / shape[0], height / shape[1])
            assert (window is None) == bool((((np.ceil(box[0, 2:]) - np.floor(box[0, :2])) / shape) > scale).any())
            if window is not None:
                assert abs(window.width / shape[0] - window.height / shape[1]) * min(shape) <= 1 + 1e-6
                assert 0 <= window.x <= box[0, 0]
                assert 0 <= window.y <= box[0, 1]
                assert box[0, 2] <= window.x + window.width <= width
                assert box[0, 3] <= window.y + window.height <= height


def test_where_no_shape_holds_everybody_the_one_that_cuts_bodies_least_is_taken():
    wide = people(((0, 110), (120, 239)), width=240)
    window, shape = target_frame(*wide, "faces", 0.2, SHAPES)
    shares = {s: largest(s, 100, 240) for s in SHAPES}
    assert shape == max(SHAPES, key=lambda s: shares[s][0]) == (128, 72)
    assert window.height == 100
    least = body_shares(wide[0], window).min()
    assert least > 0.2
    with pytest.raises(RejectionError, match="wider than the frame"):
        target_frame(*wide, "everyone", 0.2, SHAPES)
    with pytest.raises(RejectionError, match="% of a body|faces stand wider"):
        target_frame(*wide, "faces", float(least) + 0.05, SHAPES)


def test_a_sample_is_cut_to_its_shape_with_its_masks_and_square_close_ups(params):
    masks, bodies, faces = people(APART)
    frames = frame_pair("clip", np.full((100, 178, 3), 90, np.uint8))
    subjects = ClipPeople(
        key="clip", scores={}, boxes=np.stack([bodies, bodies]), keypoints=np.zeros((2, 2, 17, 3), np.float32),
        masks=np.stack([masks, masks]),
    )  # fmt: skip
    identity = VerifiedIdentity(
        key="clip", recogniser="puppet", scores={}, order=np.arange(2), face_boxes=np.stack([faces, faces]),
        landmarks=np.zeros((2, 2, 5, 2), np.float32), embeddings=np.zeros((2, 2, 4), np.float32),
    )  # fmt: skip
    caption = ClipCaption(key="clip", caption="two people", attempts=1, closeup_captions=("one", "another"))
    square = sample_of(frames, subjects, identity, caption, params)
    assert square.target.shape == (96, 96, 3)
    assert len(square.provenance["window_px"]) == 3
    cut = sample_of(frames, subjects, identity, caption, params.model_copy(update={"aspect": "buckets"}))
    assert cut.target.shape == (72, 128, 3)
    assert cut.body_masks.shape == cut.masks.shape == (2, 72, 128)
    assert cut.closeups.shape == (2, 96, 96, 3)
    assert len(cut.provenance["window_px"]) == 4
    assert Window(*cut.provenance["window_px"]) == (6, 6, 167, 94), "160 x 90 px of people with a margin of 4 %"
    assert (cut.target == 90).all(), "nothing of it lies outside of the frame"
    np.testing.assert_array_equal(cut.closeups, square.closeups)


@pytest.fixture
def params(root):
    from mcpipe.core.params import read_params
    from mcpipe.curate.samples import SamplesParams

    return read_params(root / "params.yaml", "samples", SamplesParams)


@pytest.mark.parametrize("text", ["640", "640x", "x480", "640X480", "0x480", "-8x16", "640x480x3", " 640x480", "6.5x4"])
def test_what_is_no_size_is_named(text):
    assert size_of("640x480") == (640, 480)
    with pytest.raises(ValueError, match=r"WIDTHxHEIGHT in pixels, such as 640x480, not"):
        size_of(text)
