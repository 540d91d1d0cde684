import cv2
import numpy as np
import pytest
from record_fixtures import reason_of

from mcpipe.core.records import RejectionError
from mcpipe.curate.identity import IdentityParams, check_face, check_match, face_scores, match_people, own_face
from mcpipe.curate.recognisers import threshold_for
from mcpipe.curate.subjects import (
    SubjectsParams,
    check_masks,
    check_people,
    clean_masks,
    largest_component,
    mask_scores,
    people_in,
)
from mcpipe.models.faces import lit

SUBJECTS = SubjectsParams(
    num_people=2, min_score=0.5, min_keypoint_score=0.5, min_keypoints=5, min_same_pose=0.5, max_containment=0.8,
    min_height=0.3, min_mask_fill=0.2, max_mask_overlap=0.2, records_per_shard=1,
)  # fmt: skip
IDENTITY = IdentityParams(
    min_similarity={"pack": 0.4}, min_margin=0.1, min_face_score=0.5, min_face_px=20.0, min_face_inside=0.5,
    max_face_softness=0.72, max_face_blockiness=3.2, detection_size=256, records_per_shard=1,
)  # fmt: skip


def noise(seed, height=64, width=80):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_dark_pictures_are_looked_at_in_the_light():
    np.testing.assert_array_equal(lit(noise(1)), noise(1))
    dark = (noise(1) * 0.1).astype(np.uint8)
    assert lit(dark).dtype == np.uint8
    assert 90 <= np.percentile(lit(dark), 99) <= 110
    assert lit(np.zeros((4, 4, 3), np.uint8)).max() == 0


def person_in(box, joints=17):
    """A detection whose joints lie evenly over the box, the first ones at the top; all seen but the last."""
    x0, y0, x1, y1 = box
    places = np.linspace(0.05, 0.95, 17)
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[:, 0] = x0 + (x1 - x0) * (0.5 + 0.3 * np.sin(np.arange(17)))
    keypoints[:, 1] = y0 + (y1 - y0) * places
    keypoints[:joints, 2] = 0.9
    return np.array(box, np.float32), keypoints


def people(*detections):
    return np.array([box for box, _ in detections], np.float32).reshape(-1, 4), np.array(
        [keypoints for _, keypoints in detections], np.float32
    ).reshape(-1, 17, 3)


def again(detection, box):
    """A second detection of a person in another box, joints a little off."""
    return np.array(box, np.float32), detection[1] + np.array([0.5, 0.5, 0], np.float32)


LEFT, RIGHT, THIRD = person_in((10, 10, 40, 90)), person_in((60, 12, 95, 92)), person_in((100, 10, 140, 95))
CHILD = person_in((12, 50, 36, 88))


@pytest.mark.parametrize(
    ("detections", "verdict"),
    [
        (people(RIGHT, LEFT), [1, 0]),
        (people(RIGHT, LEFT, again(LEFT, (12, 12, 39, 60))), [1, 0]),  # a double detection inside a box
        (people(RIGHT, LEFT, again(RIGHT, (40, 10, 96, 92))), [1, 0]),  # another around it
        (people(LEFT, CHILD), [1, 0]),  # a child in front of an adult, in the same box
        (people(person_in((10, 10, 60, 90)), person_in((30, 14, 80, 92))), [0, 1]),  # an embrace
        (people(LEFT), "too_few_people"),
        (people(), "too_few_people"),
        (people(LEFT, RIGHT, THIRD), "too_many_people"),
        (people(LEFT, RIGHT, person_in((45, 40, 50, 52))), "too_many_people"),  # also small ones in the background
        (people(person_in(LEFT[0], 1), person_in(RIGHT[0], 1)), "too_few_people"),  # hands alone
        (people(person_in(LEFT[0], 3), person_in(RIGHT[0], 4)), [0, 1]),  # close-ups, faces and nothing else
        (people(person_in(LEFT[0], 2), person_in(RIGHT[0], 4)), "too_few_people"),
        (people(LEFT, person_in((60, 70, 70, 90))), "person_too_small"),
    ],
)
def test_people_are_chosen_or_refused_by_name(detections, verdict):
    chosen = people_in(*detections, SUBJECTS)
    assert (reason_of(check_people, detections[0][chosen], 100, SUBJECTS) or chosen.tolist()) == verdict


def test_number_of_people_is_a_parameter():
    detections = people(THIRD, LEFT, RIGHT, person_in((150, 10, 190, 95)))
    for number in (3, 4):
        params = SUBJECTS.model_copy(update={"num_people": number})
        boxes = detections[0][:number]
        check_people(boxes, 100, params)
        assert people_in(boxes, detections[1][:number], params).tolist() == [1, 2, 0, 3][:number]


def rectangle(x0, y0, x1, y1, shape=(100, 100)):
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_masks_become_disjoint_whole_and_one_piece():
    left = rectangle(10, 10, 52, 90) | rectangle(90, 0, 95, 5)
    left[40:45, 20:25] = False
    right = rectangle(48, 10, 90, 90)
    boxes = np.array([[10, 10, 52, 90], [48, 10, 90, 90]], np.float32)
    raw = np.stack([left, right])
    cleaned = clean_masks(raw)
    check_masks(mask_scores(raw, cleaned, boxes), SUBJECTS)
    assert not (cleaned[0] & cleaned[1]).any()
    assert cleaned[0][42, 22], "the hole is filled"
    assert not cleaned[0][:5, 90:].any(), "the speck is gone"
    assert not cleaned[:, 50, 50].any(), "contested pixels are nobody's"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ([rectangle(10, 10, 14, 20), rectangle(50, 10, 90, 90)], "mask_too_small"),
        ([rectangle(10, 10, 70, 90), rectangle(48, 10, 90, 90)], "masks_overlap"),
    ],
)
def test_masks_are_refused_by_name(raw, reason):
    boxes = np.array([[10, 10, 50, 90], [48, 10, 90, 90]], np.float32)
    masks = np.stack(raw)
    assert reason_of(check_masks, mask_scores(masks, clean_masks(masks), boxes), SUBJECTS) == reason


def test_a_person_inside_the_hole_of_another_stays_themself():
    ring = rectangle(10, 10, 90, 90) & ~rectangle(30, 30, 70, 70)
    cleaned = clean_masks(np.stack([ring, rectangle(40, 40, 60, 60)]))
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
        ([[0, 20, 18, 60]], "no_face"),  # most of it is outside
    ],
)
def test_the_face_is_the_one_inside_the_mask(boxes, verdict):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    arguments = (boxes, rectangle(10, 10, 50, 90), np.zeros((17, 3), np.float32), IDENTITY)
    assert (reason_of(own_face, *arguments) or own_face(*arguments)) == verdict


def test_a_face_on_a_shirt_is_not_the_face():
    joints = np.zeros((17, 3), np.float32)
    joints[:3] = [[30, 28, 0.9], [25, 22, 0.9], [35, 22, 0.9]]
    shirt, own, around = [15, 50, 40, 80], [18, 14, 42, 38], [12, 12, 48, 60]
    assert own_face(np.array([shirt, own], np.float32), rectangle(10, 10, 50, 90), joints, IDENTITY) == 1
    with pytest.raises(RejectionError, match="several_faces: 2 faces in one mask"):
        own_face(np.array([own, around], np.float32), rectangle(10, 10, 50, 90), joints, IDENTITY)


def face(size=96):
    """Something with the textures of a face: soft shades, sharp small features."""
    grey = cv2.GaussianBlur(noise(3, size, size)[..., 0], (0, 0), size / 6).astype(np.float32)
    grey = cv2.normalize(grey, None, 90, 170, cv2.NORM_MINMAX)
    for x, y in ((0.35, 0.4), (0.65, 0.4), (0.5, 0.55), (0.5, 0.72)):
        cv2.ellipse(grey, (int(x * size), int(y * size)), (size // 12, size // 30), 0, 0, 360, 40, -1, cv2.LINE_AA)
    return np.repeat(np.clip(grey + noise(4, size, size)[..., 0] / 60, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def mosaic(picture, blocks):
    small = cv2.resize(picture, (blocks, blocks), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda picture: picture, None),
        (lambda picture: (picture * 0.2).astype(np.uint8), None),  # low light
        (lambda picture: cv2.GaussianBlur(picture, (0, 0), 8), "face_blurred"),
        (lambda picture: mosaic(picture, 6), "face_pixelated"),
        (lambda picture: mosaic(picture, 10), "face_pixelated"),
        (lambda picture: cv2.resize(picture, (16, 16), interpolation=cv2.INTER_AREA), "face_too_small"),
    ],
)
def test_faces_that_do_not_tell_who_they_are_are_refused_by_name(change, reason):
    picture = change(face())
    box = np.array([0, 0, *picture.shape[1::-1]], np.float32)
    assert reason_of(check_face, face_scores(picture, box), IDENTITY) == reason


def test_a_threshold_belongs_to_its_recogniser():
    assert threshold_for("pack", IDENTITY.min_similarity, "identity.min_similarity") == 0.4
    assert threshold_for("other", 0.3, "identity.min_similarity") == 0.3
    with pytest.raises(ValueError, match=r"identity.min_similarity has no threshold for the face pack 'other'.*pack"):
        threshold_for("other", IDENTITY.min_similarity, "identity.min_similarity")


def directions(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_people_may_swap_sides():
    match = match_people(directions(0, 90), directions(85, 10))
    check_match(match, 0.4, 0.1)
    assert match.order.tolist() == [1, 0]
    np.testing.assert_allclose(match.similarity, np.cos(np.deg2rad([10, 5])), atol=1e-4)
    np.testing.assert_allclose(match.margin, np.cos(np.deg2rad(10)) - np.cos(np.deg2rad(80)), atol=1e-4)


def test_three_people_in_a_circle_are_assigned_as_a_whole():
    match = match_people(directions(0, 60, 120), directions(118, 3, 64))
    assert match.order.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("initial", "middle", "reason"),
    [
        ((0, 90), (0, 170), "different_person"),
        ((0, 90), (180, 270), "different_person"),
        ((0, 20), (5, 12), "ambiguous_identity"),
        ((0,), (5,), None),
    ],
)
def test_identities_are_refused_by_name(initial, middle, reason):
    match = match_people(directions(*initial), directions(*middle))
    assert reason_of(check_match, match, 0.4, 0.1) == reason
