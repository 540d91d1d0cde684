"""How the zoo is measured: each measure on answers whose worth is known."""

import json

import numpy as np
import pytest

from mcpipe.models.protocols import People
from mcpipe.world.captions import attributes, describe_scene
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.scene import render, sample_scene
from zoo.scores.__main__ import MEASURES, SCORES, main
from zoo.scores.draw import containment, meetings, square_of, squares, visible_box
from zoo.scores.figures import Figure, as_json, missed_bars
from zoo.scores.generator import against_scene
from zoo.scores.mentions import ATTRIBUTES, EXTRA, f1_scores, mentions
from zoo.scores.pose import correct, overlapping, precision, pushed
from zoo.scores.recognition import MISSING, Sighting, compared, verdict
from zoo.scores.shirts import SeenPerson, in_trunk, shirt_colour


def scene_of(number, count=2):
    rng = world_rng("tests of the scores", number)
    return sample_scene(rng, [sample_identity(rng) for _ in range(count)])


def visible(number, count=2):
    scene = scene_of(number, count)
    return scene, render(scene, 0.5, 320, 240)


def test_the_drawn_world_depends_on_the_seed_alone():
    first, again, other = ([square.caption for square in squares(seed, "prompts", 3)] for seed in (5, 5, 6))
    assert first == again
    assert not set(first) & set(other)


def test_everybody_meets_once_a_round_always_the_same_person():
    seen = [(who, scene) for _, who, scene in meetings(3, "pairs", 6, 2)]
    assert sorted(who for pair, _ in seen[:3] for who in pair) == list(range(6))
    assert sorted(who for pair, _ in seen[3:] for who in pair) == list(range(6))
    keys = {(who, person.identity.key) for pair, scene in seen for who, person in zip(pair, scene.people, strict=True)}
    assert len(keys) == 6
    outfits = {person.outfit.rgb for _, scene in seen for person in scene.people}
    assert len(outfits) == 12


@pytest.mark.parametrize("number", range(12))
def test_what_a_true_caption_mentions_is_what_is_true(number):
    scene = scene_of(number, 1 + number % 3)
    mentioned = mentions(describe_scene(scene))
    for place, person in enumerate(scene.people):
        true = attributes(person.identity, person.outfit)
        bare = true["hair_cut"] == "bald" and true["facial_hair"] == "none"
        for name in (*ATTRIBUTES, *EXTRA):
            silent = true[name] in ("none", "plain") or (name == "hair_colour" and bare)
            assert {word for who, word in mentioned[name] if who == place} == (set() if silent else {true[name]})


def test_f1_counts_what_is_missing_and_what_is_wrong():
    truth = "a person with tan skin and short red hair, wearing a blue shirt; a person with dark skin and a bald head"
    caption = "a person with tan skin, short red hair and glasses, wearing a red shirt; a person with pale skin"
    scores = f1_scores([(truth, caption)])
    assert scores["shirt_colour"] == (0.0, 1)
    assert scores["skin"] == (0.5, 2)
    assert scores["hair_cut"] == (pytest.approx(2 / 3), 2)  # "bald" is missing: precision 1, recall 1/2
    assert scores["glasses"] == (0.0, 0)
    # skin 1, hair colour 1, hair cut 1 right; 6 true mentions, 6 told ones.
    assert scores["all"] == (pytest.approx(3 / 6), 6)


def test_a_caption_that_swaps_the_people_earns_nothing():
    people = "a person with tan skin, wearing a blue shirt", "a person with dark skin, wearing a red shirt"
    swapped = f1_scores([("; ".join(people), "; ".join(reversed(people)))])
    assert swapped["all"][0] == 0.0
    assert f1_scores([("; ".join(people), "; ".join(people))])["all"][0] == 1.0


def test_shirts_are_read_right_at_the_generators_size():
    right = []
    for number in range(20):
        scene, frame = visible(number)
        square = square_of(scene, frame, np.random.default_rng(0))
        left = round(frame.people[0].face_box[0] - square.faces[0][0])
        labels = frame.labels[:, left : left + 240]
        small = square.sized(96)
        rows, columns = (np.mgrid[:96, :96] + 0.5) * 2.5
        for index, person in enumerate(frame.people):
            mask = labels[rows.astype(int), columns.astype(int)] == index + 1
            inside = in_trunk(person.keypoints - [left, 0, 0], columns, rows) & mask
            right.append(shirt_colour(small[inside]) == person.outfit.colour)
    assert np.mean(right) >= 0.95


def test_a_striped_white_shirt_is_not_gray_and_a_gray_one_is_not_white():
    white, gray = np.full((40, 3), 238.0), np.full((40, 3), 132.0)
    noise = np.random.default_rng(0).normal(0, 5, (80, 3))
    assert shirt_colour(np.concatenate([white, gray]) + noise) == "white"
    assert shirt_colour(np.concatenate([gray, gray]) + noise) == "gray"


def test_a_wrong_number_of_people_makes_all_shirts_wrong():
    (square,) = (candidate for candidate in squares(8, "prompts", 1))
    people = square.scene.people
    seen = [SeenPerson(np.zeros(4), person.outfit.colour) for person in people]
    assert against_scene(square, seen).shirts == (True,) * len(people)
    assert not any(against_scene(square, [*seen, seen[0]]).shirts)
    assert not against_scene(square, seen[:-1]).count_right


def test_acceptance_at_a_rate_and_a_face_not_found_is_not_accepted():
    def at(angle):
        return np.array([np.cos(angle), np.sin(angle)])

    # Two people, each in three pictures; person 1 looks like person 0 once, and is lost once.
    angles = {(0, 0): 0.0, (0, 1): 0.1, (0, 2): 0.2, (1, 3): 1.5, (1, 4): 0.8}
    sightings = [Sighting(who, scene, 0, at(angle)) for (who, scene), angle in angles.items()]
    sightings.append(Sighting(1, 5, 0, MISSING[:2]))
    pairs = compared(sightings)
    judged_pairs = verdict(pairs.cosines, pairs.same, ~pairs.same, (0.0, 1 / 5, 1.0))
    assert (judged_pairs.genuine, judged_pairs.impostor) == (6, 6)
    # Of the impostors the most alike is 0.6 rad away: person 0's three pairs are closer, person 1's found one is not.
    assert judged_pairs.rates == {0.0: 0.5, 1 / 5: 0.5, 1.0: pytest.approx(4 / 6)}


def test_precision_is_that_of_true_boxes_and_falls_with_every_fault():
    frames = [visible(number)[1] for number in range(4)]
    truth = [list(frame.people) for frame in frames]

    def average(change):
        hits, certain = [], []
        for people in truth:
            boxes, scores = change(np.stack([visible_box(person) for person in people]), np.array([0.9, 0.8]))
            keypoints = np.stack([people[index % 2].keypoints for index in range(len(boxes))])
            detections = People(boxes.astype(np.float32), scores, keypoints.astype(np.float32))
            hits.append(correct(people, detections))
            certain += list(scores)
        return [precision(np.concatenate(kind), np.array(certain), 8) for kind in zip(*hits, strict=True)]

    assert average(lambda boxes, scores: (boxes, scores)) == [pytest.approx(0.995, abs=0.006)] * 2
    lost = average(lambda boxes, scores: (boxes[:1], scores[:1]))
    assert lost[0] < 0.6
    twice = average(lambda boxes, scores: (np.concatenate([boxes, boxes]), np.array([0.9, 0.8, 0.95, 0.85])))
    assert twice[0] < 0.85
    moved, joints = average(lambda boxes, scores: (boxes + 60, scores))
    assert moved < 0.1
    assert joints > 0.98


def test_overlapping_people_do_overlap_and_pushed_ones_more():
    def shared(frames):
        return [containment(*(visible_box(person) for person in frame.people)) for frame in frames]

    drawn, closer = shared(overlapping(4, 2)), shared(pushed(4, 2))
    assert min(drawn) >= 0.15
    assert np.mean(closer) > np.mean(drawn)


def test_bars_are_met_from_their_value_on_and_errors_must_stay_below():
    figures = [
        Figure("share", 0.9, 10, "people", 0.9),
        Figure("low", 0.8999, 10, "people", 0.9),
        Figure("error", 0.05, 10, "faces", 0.05, below=True),
        Figure("told", 0.123456, 10, "faces"),
    ]
    assert [figure.met for figure in figures] == [True, False, False, None]
    assert missed_bars({"pose": figures}) == ["pose.low", "pose.error"]
    stored = json.loads(json.dumps(as_json({"pose": figures}, 7, ["hps"])))
    assert (stored["seed"], stored["unmeasured"]) == (7, ["hps"])
    assert stored["checkpoints"]["pose"]["told"] == {"value": 0.1235, "count": 10, "of": "faces"}


def test_every_published_checkpoint_is_measured():
    from zoo.build.publish import CHECKPOINTS

    assert set(MEASURES) == set(CHECKPOINTS)


def test_a_missing_checkpoint_is_one_clear_line(tmp_path, caplog):
    assert main(["--seed", "1", "--only", "pose", "hps", "--zoo", str(tmp_path)]) == 1
    messages = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert [message.split(":")[1].strip() for message in messages] == ["pose", "hps"]
    assert str(tmp_path / "hps") in messages[1]
    assert not (tmp_path / SCORES).exists()
