"""The puppet world: who people are, what pictures show, and that its truth is true."""

import re

import numpy as np
import pytest

from mcpipe.world.attributes.skin import skin_rgb, skin_tone
from mcpipe.world.captions import COUNTS, VOCABULARY, attributes, describe_face, describe_person, describe_scene
from mcpipe.world.identities import GEOMETRY_RANGES, SKIN_TONES, sample_identity, world_rng
from mcpipe.world.outfits import COLOURS, sample_outfit
from mcpipe.world.scene import OBJECT_LABEL, mask_box, render, render_portrait, sample_scene
from mcpipe.world.shots import FRAMINGS

WIDTH, HEIGHT = 320, 240


def scene_of(count, number=0, namespace="tests"):
    rng = world_rng(namespace, number)
    return sample_scene(rng, [sample_identity(rng) for _ in range(count)], framing=FRAMINGS["far"])


def frames(count, total):
    return [render(scene_of(count, number), 0.1 * number, WIDTH, HEIGHT) for number in range(total)]


def test_same_seed_same_picture_and_another_seed_another():
    first, again, other = (render(scene_of(2, number), 0.5, WIDTH, HEIGHT) for number in (1, 1, 2))
    assert np.array_equal(first.rgb, again.rgb)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.rgb, other.rgb)


def test_namespaces_and_numbers_keep_identities_apart():
    streams = [("zoo", 1), ("clips", 1), ("faces", 1), ("zoo", 2), ("zoo", 1, 2)]
    keys = [sample_identity(world_rng(*stream)).key for stream in streams for _ in range(1)]
    assert len(set(keys)) == len(keys)
    assert sample_identity(world_rng("zoo", 1)).key == keys[0]


def test_traits_stay_in_their_documented_ranges_and_vary():
    people = [sample_identity(world_rng("tests", number)) for number in range(200)]
    for name, (low, high) in GEOMETRY_RANGES.items():
        values = [getattr(person, name) for person in people]
        assert low <= min(values) < max(values) <= high
        assert max(values) - min(values) > 0.8 * (high - low)
    assert {skin_tone(person.skin) for person in people} == set(SKIN_TONES)


def test_skin_of_a_named_tone_is_nearest_to_that_tone():
    for number in range(50):
        person = sample_identity(world_rng("tests", number))
        colour = skin_rgb(person.skin)
        nearest = min(SKIN_TONES, key=lambda tone: np.abs(np.array(SKIN_TONES[tone]) - colour).sum())
        assert skin_tone(person.skin) == nearest


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_boxes_are_those_of_the_masks(count):
    for frame in frames(count, 4):
        assert len(frame.people) == count
        assert set(np.unique(frame.labels)) <= {0, *range(1, count + 1), *range(101, 101 + count)}
        for index, person in enumerate(frame.people):
            mask = frame.labels == index + 1
            rows, columns = np.nonzero(mask)
            assert person.box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_faces_are_large_enough_for_identity_to_survive(count):
    for frame in frames(count, 12):
        for person in frame.people:
            assert 0.27 < person.head_height_px / HEIGHT < 0.37
            assert person.face_box[3] - person.face_box[1] >= HEIGHT / 5
            assert person.face_visible > 0.9


def test_landmarks_lie_in_the_face_on_the_person():
    for number, frame in enumerate(frames(2, 12)):
        for index, person in enumerate(frame.people):
            assert (person.landmarks > person.face_box[:2]).all(), number
            assert (person.landmarks < person.face_box[2:]).all(), number
            for x, y in person.landmarks:
                assert frame.labels[int(y), int(x)] == index + 1
            eyes, mouth = person.landmarks[:2], person.landmarks[3:]
            assert eyes[0, 0] < eyes[1, 0]
            assert mouth[0, 0] < mouth[1, 0]
            assert mouth[:, 1].min() > eyes[:, 1].max()


def test_visible_keypoints_lie_on_their_person_and_absent_ones_outside():
    for frame in frames(2, 12):
        for index, person in enumerate(frame.people):
            for x, y, seen in person.keypoints:
                inside = 0 <= x < WIDTH and 0 <= y < HEIGHT
                assert inside == (seen > 0)
                if seen == 2:
                    assert frame.labels[int(y), int(x)] in (0, index + 1, OBJECT_LABEL + index + 1)
            assert (person.keypoints[:7, 2] > 0).all()
            left, right = person.keypoints[5], person.keypoints[6]
            assert left[0] > right[0]


def test_two_people_fit_in_a_square_of_the_frame():
    for frame in frames(2, 40):
        boxes = np.stack([person.box for person in frame.people])
        assert boxes[:, 2].max() - boxes[:, 0].min() <= HEIGHT


def test_people_move_between_first_and_middle_frame():
    for number in range(5):
        scene = scene_of(2, number)
        first, middle = (render(scene, time_s, WIDTH, HEIGHT) for time_s in (0.0, 1.0))
        moved = [np.abs(a.landmarks - b.landmarks).max() for a, b in zip(first.people, middle.people, strict=True)]
        assert max(moved) > 0.5


def test_a_held_object_is_in_the_picture_under_its_own_label():
    held = 0
    for frame in frames(2, 10):
        for index, person in enumerate(frame.people):
            area = (frame.labels == OBJECT_LABEL + index + 1).sum()
            assert (area > 30) == (person.outfit.held is not None)
            held += person.outfit.held is not None
    assert 5 < held < 18


def test_mask_box_of_nothing_is_none():
    assert mask_box(np.zeros((4, 4), bool)) is None


def test_portrait_shows_one_frontal_face_with_empty_hands():
    for number in range(5):
        rng = world_rng("faces", number)
        frame = render_portrait(sample_identity(rng), rng, 160)
        (sitter,) = frame.people
        assert frame.rgb.shape == (160, 160, 3)
        assert sitter.outfit.held is None
        assert sitter.face_visible > 0.9
        assert not (frame.labels > OBJECT_LABEL).any()


def test_a_scene_refuses_a_fourth_person_and_missing_clothes():
    rng = world_rng("tests", 0)
    people = [sample_identity(rng) for _ in range(4)]
    with pytest.raises(ValueError, match="three people"):
        sample_scene(rng, people)
    with pytest.raises(ValueError, match="outfits"):
        sample_scene(rng, people[:2], [sample_outfit(rng)])


def test_captions_follow_the_grammar_and_name_everybody_once():
    word = "[a-z]+"
    person = rf"a person with {word} skin.*, wearing an? (striped )?{word} shirt.*( and holding an? {word} {word})?"
    for count in (1, 2, 3, 4):
        sides = "(on the left|in the middle|on the right) " if count < 4 else ""
        for number in range(20):
            caption = describe_scene(scene_of(count, number))
            assert caption.startswith(COUNTS[count])
            head, people = caption.split(": ")
            assert re.fullmatch(rf"{COUNTS[count]} (in|on) an? {word}", head)
            assert people.count("a person") == count
            assert all(re.fullmatch(f"{sides}{person}", p) for p in people.split("; "))


def test_captions_tell_every_attribute_and_only_from_the_vocabulary():
    for number in range(60):
        rng = world_rng("tests", number)
        identity, outfit = sample_identity(rng), sample_outfit(rng)
        sentence, words = describe_person(identity, outfit), attributes(identity, outfit)
        assert list(words) == list(VOCABULARY)
        assert all(word in VOCABULARY[name] for name, word in words.items())
        assert sentence.startswith(describe_face(identity))
        assert f"{words['skin']} skin" in sentence
        assert ("glasses" in sentence) == (words["glasses"] == "glasses")
        assert ("striped" in sentence) == (words["shirt_pattern"] == "striped")
        assert (f"{words['object_colour']} {words['object']}" in sentence) == (outfit.held is not None)
        if words["hair_cut"] != "bald":
            assert f"{words['hair_cut']} {words['hair_colour']} hair" in sentence
        if words["facial_hair"] != "none":
            assert words["facial_hair"] in sentence


def test_shirts_are_painted_in_the_colour_that_the_caption_names():
    looked = 0
    for frame in frames(2, 20):
        for index, person in enumerate(frame.people):
            x, y = person.keypoints[5:7, :2].mean(axis=0).astype(int)
            here = (slice(y + 4, y + 14), slice(x - 10, x + 10))
            mine = frame.labels[here] == index + 1
            if person.outfit.pattern == "striped" or mine.sum() < 60:
                continue
            colour = np.median(frame.rgb[here][mine], axis=0)
            colour = colour / max(colour.max(), 60)
            apart = {name: np.abs(np.array(rgb) / max(*rgb, 60) - colour).sum() for name, rgb in COLOURS.items()}
            assert sorted(apart, key=lambda name: apart[name]).index(person.outfit.colour) <= 2
            looked += 1
    assert looked > 10
