import cv2
import numpy as np
import pytest

from mcpipe.curate.captions import SentenceParams, caption_fault
from mcpipe.curate.frames import FramesParams, frame_fault
from mcpipe.curate.identity import IdentityParams, Match, face_of, match_people
from mcpipe.curate.samples import (
    crop_masks,
    face_crop,
    face_masks,
    identity_groups,
    portrait,
    split_by_identity,
    square_window,
)
from mcpipe.curate.subjects import SubjectsParams, clean_masks, largest_component, subjects

FRAMES = FramesParams(
    min_duration_s=0.5, min_brightness=8.0, min_sharpness=15.0, min_change=0.5, max_jump=20.0, records_per_shard=1
)
SUBJECTS = SubjectsParams(
    num_people=2, min_score=0.5, min_keypoint_score=0.5, min_keypoints=5, max_overlap=0.8, min_height=0.3,
    min_mask_fill=0.2, records_per_shard=1,
)  # fmt: skip
IDENTITY = IdentityParams(
    min_similarity=0.4, min_margin=0.1, min_face_score=0.5, min_face_px=20.0, min_face_sharpness=5.0,
    detection_size=256, records_per_shard=1,
)  # fmt: skip
SENTENCE = SentenceParams(min_words=5, max_words=20, attempts=2, temperature=0.7, max_tokens=64, seed=0)


def noise(seed, height=64, width=80):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def drifting(num, step=3):
    """Thumbnails of a picture that shifts a little from frame to frame."""
    picture = cv2.GaussianBlur(noise(0, 32, 96), (0, 0), 4)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    return np.stack([picture[:, i * step : i * step + 32] for i in range(num)])


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        (None, {}),
        ("too_short", {"duration_s": 0.2}),
        ("black", {"middle": np.zeros((64, 80, 3), np.uint8)}),
        ("blurred", {"initial": np.full((64, 80, 3), 90, np.uint8)}),
        ("duplicate", {"thumbnails": np.repeat(drifting(1), 6, axis=0)}),
        ("cut", {"thumbnails": np.concatenate([drifting(5, 1), 255 - drifting(5, 1)])}),
    ],
)
def test_frames_are_refused_by_name(reason, change):
    clip = {"initial": noise(1), "middle": noise(2), "thumbnails": drifting(10), "duration_s": 1.0} | change
    fault = frame_fault(**clip, params=FRAMES)
    assert (fault and fault[0]) == reason


def test_lively_motion_is_no_cut():
    lively = FRAMES.model_copy(update={"max_jump": 1.0})
    assert frame_fault(noise(1), noise(2), drifting(10, step=6), 1.0, lively) is None


def people(*boxes, joints=17):
    keypoints = np.zeros((len(boxes), 17, 3), np.float32)
    keypoints[:, :joints, 2] = 0.9
    return np.array(boxes, np.float32).reshape(-1, 4), keypoints


LEFT, RIGHT, THIRD = (10, 10, 40, 90), (60, 12, 95, 92), (100, 10, 140, 95)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (people(RIGHT, LEFT), [1, 0]),
        (people(RIGHT, (12, 12, 39, 80), LEFT), [1, 0]),  # a double detection inside a box
        (people(LEFT), "too_few_people"),
        (people(), "too_few_people"),
        (people(LEFT, RIGHT, THIRD), "too_many_people"),
        (people(LEFT, RIGHT, joints=1), "too_few_people"),  # hands alone
        (people(LEFT, (60, 70, 70, 90)), "person_too_small"),
    ],
)
def test_subjects_are_chosen_or_refused_by_name(found, verdict):
    chosen = subjects(*found, height_px=100, params=SUBJECTS)
    assert (chosen[0] if isinstance(chosen, tuple) else chosen.tolist()) == verdict


def test_number_of_people_is_a_parameter():
    three = SUBJECTS.model_copy(update={"num_people": 3})
    assert subjects(*people(THIRD, LEFT, RIGHT), height_px=100, params=three).tolist() == [1, 2, 0]


def rectangle(x0, y0, x1, y1, shape=(100, 100)):
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_masks_become_disjoint_whole_and_one_piece():
    left = rectangle(10, 10, 52, 90) | rectangle(90, 0, 95, 5)
    left[40:45, 20:25] = False
    right = rectangle(48, 10, 90, 90)
    boxes = np.array([[10, 10, 52, 90], [48, 10, 90, 90]], np.float32)
    cleaned = clean_masks(np.stack([left, right]), boxes, SUBJECTS)
    assert not (cleaned[0] & cleaned[1]).any()
    assert cleaned[0][42, 22], "the hole is filled"
    assert not cleaned[0][:5, 90:].any(), "the speck is gone"
    assert not cleaned[:, 50, 50].any(), "contested pixels are nobody's"


def test_a_mask_that_leaves_its_box_empty_is_refused():
    boxes = np.array([[10, 10, 50, 90], [48, 10, 90, 90]], np.float32)
    assert (
        clean_masks(np.stack([rectangle(10, 10, 14, 20), rectangle(50, 10, 90, 90)]), boxes, SUBJECTS)[0]
        == "mask_too_small"
    )


def test_a_person_inside_the_hole_of_another_stays_themself():
    ring = rectangle(10, 10, 90, 90) & ~rectangle(30, 30, 70, 70)
    boxes = np.array([[10, 10, 90, 90], [40, 40, 60, 60]], np.float32)
    cleaned = clean_masks(np.stack([ring, rectangle(40, 40, 60, 60)]), boxes, SUBJECTS)
    assert cleaned[1].sum() == 400
    assert not (cleaned[0] & cleaned[1]).any()


def test_largest_component_of_nothing_is_nothing():
    assert not largest_component(np.zeros((5, 5), bool)).any()


@pytest.mark.parametrize(
    ("boxes", "verdict"),
    [
        ([[20, 20, 50, 60]], 0),
        ([[60, 20, 90, 60], [20, 20, 50, 60]], 1),
        ([[60, 20, 90, 60]], "no_face"),
        ([], "no_face"),
        ([[12, 20, 30, 60], [20, 20, 50, 60]], "several_faces"),
        ([[20, 20, 30, 32]], "face_too_small"),
    ],
)
def test_the_face_is_the_one_inside_the_mask(boxes, verdict):
    found = face_of(np.array(boxes, np.float32).reshape(-1, 4), rectangle(10, 10, 50, 90), IDENTITY)
    assert (found[0] if isinstance(found, tuple) else found) == verdict


def directions(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_people_may_swap_sides():
    match = match_people(directions(0, 90), directions(85, 10), IDENTITY)
    assert isinstance(match, Match)
    assert match.order.tolist() == [1, 0]
    np.testing.assert_allclose(match.similarity, np.cos(np.deg2rad([10, 5])))
    np.testing.assert_allclose(match.margin, np.cos(np.deg2rad(10)) - np.cos(np.deg2rad(80)))


@pytest.mark.parametrize(
    ("initial", "middle", "reason"),
    [((0, 90), (0, 170), "different_person"), ((0, 20), (5, 12), "ambiguous_identity")],
)
def test_identities_are_refused_by_name(initial, middle, reason):
    assert match_people(directions(*initial), directions(*middle), IDENTITY)[0] == reason


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("two people in a park: a person in red and a person in blue", None),
        ("Two people: A person waves, a person sits, both smile.", None),
        ("a person and a person", None),
        ("a person only", "caption_too_short"),
        ("one person in a park: a person in a red shirt", "caption_wrong_count"),
        ("three people: a person, a person and a person in a park", "caption_wrong_count"),
        ("I'm sorry, I cannot describe a person and a person in pictures", "caption_refusal"),
        (" ".join(["a person and a person"] + ["very"] * 20), "caption_too_long"),
        ("", "caption_too_short"),
        ("two people: a person in red and a \ufffd\ufffd a person", "caption_garbled"),
    ],
)
def test_captions_are_refused_by_name(caption, reason):
    assert caption_fault(caption, 2, SENTENCE) == reason


def test_square_holds_everyone_or_is_refused():
    x, _, side = square_window(np.array([[40, 20, 70, 100], [90, 10, 130, 100]], np.float32), 100, 200)
    assert side == 94  # four per cent more than the 90 pixels they span
    assert x <= 40
    assert x + side >= 130
    assert square_window(np.array([[0, 0, 30, 100], [170, 0, 200, 100]], np.float32), 100, 200) is None
    x, y, side = square_window(np.array([[50, 30, 90, 80]], np.float32), 100, 200)
    assert x <= 50
    assert y <= 30
    assert x + side >= 90
    assert y + side >= 80
    assert side < 60


def test_cropped_masks_stay_disjoint_and_keep_their_share():
    masks = np.stack([rectangle(0, 0, 51, 100), rectangle(51, 0, 100, 100)])
    cropped = crop_masks(masks, (0, 0, 100), 24)
    assert not cropped.all(axis=0).any()
    np.testing.assert_allclose(cropped.mean(axis=(1, 2)), [0.51, 0.49], atol=0.03)


def test_face_reference_is_square_with_white_outside_the_picture():
    picture = np.zeros((100, 100, 3), np.uint8)
    crop = face_crop(picture, np.array([0, 0, 40, 40], np.float32), 60)
    assert crop.shape == (60, 60, 3)
    assert (crop[0] == 255).all()
    assert (crop[30:, 30:] == 0).all()


def test_portrait_shows_one_person_on_white():
    picture = np.full((100, 100, 3), 7, np.uint8)
    cut = portrait(picture, rectangle(40, 20, 60, 80), 60)
    assert (cut[:, 30] == 7).all()
    assert (cut[:, :15] == 255).all()
    with pytest.raises(ValueError, match="at least one pixel"):
        portrait(picture, np.zeros((100, 100), bool), 60)


def test_face_mask_is_the_part_of_the_person_in_the_face_box():
    masks = rectangle(20, 0, 60, 100)[None]
    assert face_masks(masks, np.array([[10, 10, 40, 30]], np.float32)).sum() == 20 * 20
    assert face_masks(masks, np.array([[-30, -30, 40, 30]], np.float32)).sum() == 20 * 30


def test_one_identity_in_several_clips_is_one_group():
    groups = identity_groups(directions(0, 90, 5, 180, 95), same_identity=0.9)
    assert groups[0] == groups[2]
    assert groups[1] == groups[4]
    assert len(set(groups)) == 3


def test_no_identity_is_in_both_splits():
    samples = [["a", "b"], ["b", "c"], ["d", "e"], ["f", "g"], ["h", "i"], ["i", "a"]]
    splits = split_by_identity(samples, val_fraction=0.34, seed=1)
    seen = {split: {who for s, p in zip(splits, samples, strict=True) if s == split for who in p} for split in splits}
    assert set(splits) == {"train", "val"}
    assert not seen["train"] & seen["val"]
    assert splits == split_by_identity(samples, val_fraction=0.34, seed=1)
    assert splits.count("val") == 2
    assert split_by_identity([], 0.5, 0) == []
