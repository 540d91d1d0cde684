"""The controls of the benchmark: which references they give, what they score, and how sure their means are."""

import numpy as np
import pytest
from record_fixtures import pair_prompt

from mcpipe.bench.binding import binding, coverage
from mcpipe.bench.control_scores import ceiling_of, control_scores, with_controls
from mcpipe.bench.controls import TARGETS, control_faces
from mcpipe.bench.copying import is_duplicate, own_minus_cross
from mcpipe.bench.intervals import IntervalParams, mean_interval, unit_interval
from mcpipe.bench.metrics import MetricScorers, Reference, Score
from mcpipe.core.schemas.benchmark import GeneratedImage, RealTarget
from mcpipe.core.shards import write_shards
from mcpipe.models.protocols import Faces

INTERVAL = IntervalParams(resamples=500, seed=0)
POOL = [f"face-{number}" for number in range(6)]
PAIRS = [(POOL[0], POOL[1]), (POOL[2], POOL[0]), (POOL[4], POOL[5])]
WIDTH = 8


class ColourFaces:
    """Takes every half of an image that is not black for a face, embedded as the unit vector of its red value."""

    name = "colours"

    def faces(self, picture):
        height, width = picture.shape[:2]
        halves = [(0, picture[0, 0, 0]), (width // 2, picture[0, -1, 0])]
        faces = [(x, int(value)) for x, value in halves if value]
        boxes = np.array([[x, 0, x + width // 2, height] for x, _ in faces], np.float32).reshape(-1, 4)
        return Faces(
            boxes=boxes,
            scores=np.ones(len(faces), np.float32),
            landmarks=np.zeros((len(faces), 5, 2), np.float32),
            embeddings=np.eye(WIDTH, dtype=np.float32)[[value - 1 for _, value in faces]].reshape(-1, WIDTH),
        )


def halves(left, right):
    picture = np.zeros((4, 8, 3), np.uint8)
    picture[:, :4], picture[:, 4:] = left, right
    return picture


def test_controls_give_nobody_or_others_or_the_same_people_in_another_order():
    assert control_faces("no_references", PAIRS, POOL, 0) == [(), (), ()]
    assert control_faces("swapped", [*PAIRS, ("a", "b", "c")], POOL, 0) == [
        (POOL[1], POOL[0]), (POOL[0], POOL[2]), (POOL[5], POOL[4]), ("b", "c", "a")
    ]  # fmt: skip
    others = control_faces("other_people", PAIRS * 20, POOL, 3)
    assert all(
        not set(own) & set(given) and len(set(given)) == 2 for own, given in zip(PAIRS * 20, others, strict=True)
    )
    assert others == control_faces("other_people", PAIRS * 20, POOL[::-1], 3)
    assert others != control_faces("other_people", PAIRS * 20, POOL, 4)
    assert {face for given in others for face in given} == set(POOL)
    with pytest.raises(ValueError, match=r"needs 2 faces .* pool has 1 more; add portraits"):
        control_faces("other_people", PAIRS, POOL[:2] + POOL[4:5], 0)


def test_binding_is_the_share_of_attention_on_the_own_face():
    size, boxes = (96, 96), {0: np.array([8.0, 8, 40, 40]), 1: np.array([56.0, 8, 88, 40])}
    maps = np.stack([coverage(box, size, (12, 12)) for box in boxes.values()])
    assert coverage(np.array([4.0, 0, 12, 8]), size, (12, 12))[0, :3].tolist() == [0.5, 0.5, 0]
    assert binding(maps, boxes, size) == 1
    assert binding(maps[::-1], boxes, size) == 0
    assert binding(np.ones((2, 12, 12)), boxes, size) == pytest.approx(0.5)
    assert binding(np.zeros((2, 12, 12)), boxes, size) == 0.5
    mixed = 0.7 * maps + 0.3 * maps[::-1]
    assert binding(mixed, boxes, size) == pytest.approx(0.7)
    assert binding(mixed[::-1], {0: boxes[1], 1: boxes[0]}, size) == pytest.approx(0.7), "slots are no information"
    assert binding(maps, {0: boxes[0]}, size) is None


def test_two_faces_of_one_reference_are_duplicates():
    similarity = np.array([[0.9, 0.6], [0.1, 0.2]])
    assert is_duplicate(similarity, {0: 0, 1: 1}) is True
    assert is_duplicate(similarity[::-1], {0: 0, 1: 1}) is True
    assert is_duplicate(np.eye(2), {0: 0, 1: 1}) is False
    assert is_duplicate(similarity, {0: 0}) is None
    assert own_minus_cross([0.9, 0.2], [0.1, 0.6]) == pytest.approx(0.55 - 0.35)
    assert own_minus_cross([0.9], []) is None


def test_pictures_that_share_people_are_fewer_than_they_seem():
    """12 people in 66 pairs, each person's likeness the same wherever they appear."""
    likeness = np.random.default_rng(1).normal(size=12)
    pairs = [(str(a), str(b)) for a in range(12) for b in range(a)]
    values = [float(likeness[int(a)] + likeness[int(b)]) / 2 for a, b in pairs]
    by_person, by_picture = unit_interval(values, pairs, INTERVAL), mean_interval(values, INTERVAL)
    assert by_person.value == pytest.approx(by_picture.value)
    theory = 2 * 1.96 * likeness.std(ddof=1) / np.sqrt(12)
    assert by_person.high - by_person.low == pytest.approx(theory, rel=0.2)
    assert by_person.high - by_person.low > 1.8 * (by_picture.high - by_picture.low)
    with pytest.raises(ValueError, match="at least two prompts or people"):
        unit_interval([1.0, 2.0], [["a"], ["a"]], INTERVAL)


def person(value):
    identity = np.eye(WIDTH, dtype=np.float32)[value - 1]
    return Reference(identity, identity, identity, identity, np.zeros((5, 2)), np.zeros((1, 3)))


def test_controls_are_compared_with_those_whom_the_prompt_names(tmp_path):
    people = {"a": person(1), "b": person(2), "c": person(3), "d": person(4)}
    prompts = [pair_prompt("two people", "a", "b"), pair_prompt("two people", "c", "d")]
    scorers = MetricScorers(ColourFaces(), ColourFaces(), None, None, None, None)
    drawn = {
        "no_references": [halves(0, 0), halves(7, 3)],
        "other_people": [halves(1, 4), halves(1, 2)],
        "swapped": [halves(2, 1), halves(4, 3)],
    }
    for kind, pictures in drawn.items():
        images = [
            GeneratedImage(key=prompt.key, prompt=prompt.prompt, names=(), seed=0, image=picture)
            for prompt, picture in zip(prompts, pictures, strict=True)
        ]
        write_shards(images, tmp_path / kind, 4)
    scores = control_scores(prompts, tmp_path, people, scorers)
    assert scores["a+b"] == {"face_sim_floor": 0, "face_sim_others": 0.5, "face_sim_swapped": 1}
    assert scores["c+d"] == {"face_sim_floor": 0.5, "face_sim_others": 0, "face_sim_swapped": 1}
    score = with_controls(Score(0, 0, 0, 0, 0, face_sim=0.75), scores["a+b"])
    assert (score.identity_lift, score.face_sim_others, score.face_sim_floor) == (0.25, 0.5, 0)
    assert with_controls(score, {}).identity_lift == 0.25
    with pytest.raises(ValueError, match=r"no picture for the prompt 'a\+c'; run generate again"):
        control_scores([pair_prompt("x", "a", "c")], tmp_path, people, scorers)


def test_the_ceiling_is_that_of_people_whose_reference_shows_a_face(tmp_path):
    def target(key, image, references):
        portraits = [halves(value, 0)[:, :4] if value else halves(0, 0)[:, :4] for value in references]
        names = tuple(f"person-{value}" for value in references)
        return RealTarget(key=key, names=names, image=image, references=np.stack(portraits))

    assert ceiling_of(tmp_path / TARGETS, ColourFaces(), INTERVAL) == ({}, 0)
    write_shards([target("0", halves(1, 2), (1, 2))], tmp_path / "few", 4)
    assert ceiling_of(tmp_path / "few", ColourFaces(), INTERVAL) == ({}, 0)
    targets = [target("0", halves(1, 2), (1, 2)), target("1", halves(3, 5), (3, 4)), target("2", halves(6, 5), (0, 6))]
    write_shards(targets, tmp_path / TARGETS, 4)
    means, faceless = ceiling_of(tmp_path / TARGETS, ColourFaces(), INTERVAL)
    assert faceless == 1
    assert means["face_sim_ceiling"].value == pytest.approx((1 + 0.5 + 1) / 3)
