"""Scores of a picture: matching, missing subjects, invariances."""

import numpy as np
import pytest

from mcpipe.bench.bootstrap import IntervalParams
from mcpipe.bench.metrics import Judges, Reference, pairing, references, score, summary
from mcpipe.bench.published import ABLATION, COMPARISON, overall_average
from mcpipe.bench.tables import ArmScores, as_metrics, changes, from_metrics, text_table
from mcpipe.models.protocols import Faces
from mcpipe.objectives.reward import identity_reward
from mcpipe.records import Record

INTERVAL = IntervalParams(resamples=200, seed=0)
SIZE = 8


def unit(*numbers):
    vector = np.array(numbers, np.float64)
    return vector / np.linalg.norm(vector)


class Encoder:
    """Embeds a picture by its mean colour, a text by its length."""

    def pictures(self, pictures):
        return np.stack([unit(*(picture.reshape(-1, 3).mean(axis=0) + 1)) for picture in pictures])

    def texts(self, texts):
        return np.stack([unit(len(text), 1, 1) for text in texts])


class Scorer:
    def scores(self, pictures, prompts):
        return np.array([0.28 for _ in zip(pictures, prompts, strict=True)])


class Finder:
    """Finds what it is told to."""

    def __init__(self, embeddings, order=None):
        self.embeddings = np.asarray(embeddings, np.float64).reshape(-1, 3)
        self.order = list(range(len(self.embeddings))) if order is None else order

    def faces(self, picture):
        assert picture.shape[0] == SIZE
        boxes = np.array([[SIZE * i, 0, SIZE * (i + 1), SIZE] for i in range(len(self.embeddings))], np.float64)
        boxes, found = boxes.reshape(-1, 4)[self.order], self.embeddings[self.order]
        return Faces(boxes, np.ones(len(found)), np.zeros((len(found), 5, 2)), found)


def crop(picture, box):
    return picture[:, int(box[0]) : int(box[2])]


def judges(finder):
    return Judges(faces=finder, clip=Encoder(), dino=Encoder(), hps=Scorer(), crop=crop)


def person(seed):
    colour = np.random.default_rng(seed).integers(0, 255, 3)
    return np.full((SIZE, SIZE, 3), colour, np.uint8), unit(*np.random.default_rng(seed + 50).random(3))


PEOPLE = [person(seed) for seed in range(3)]
POOL = references(
    [Record(str(i), {}, {"reference": face, "embedding": who}) for i, (face, who) in enumerate(PEOPLE)],
    judges(Finder([])),
)
WANTED = [POOL["0"], POOL["1"]]
PICTURE = np.concatenate([face for face, _ in PEOPLE[:2]], axis=1)


@pytest.mark.parametrize(
    ("similarity", "reward", "paired"),
    [
        ([[0.9, 0.1], [0.2, 0.8]], 0.85, 0.85),
        ([[0.6, 0.55], [0.5, 0.1]], 0.525, 0.525),
        ([[0.7], [0.6]], 0.35, 0.35),
        ([[0.6, 0.1], [0.2, -0.5]], 0.30, 0.05),
        ([[0.7, 0.7], [0.7, 0.7]], 0.7, 0.7),
        ([[0.5, 0.4, 0.9], [0.3, 0.8, 0.85]], 0.85, 0.85),
        ([[], []], 0.0, 0.0),
    ],
)
def test_face_sim_pairs_at_most_once_and_never_counts_a_negative_pair(similarity, reward, paired):
    table = np.array(similarity, np.float64).reshape(2, -1)
    assert identity_reward(table) == pytest.approx(reward)
    pairs = pairing(table)
    assert len(pairs) == min(table.shape)
    assert len(set(pairs.values())) == len(pairs)
    assert sum(table[i, j] for i, j in pairs.items()) / 2 == pytest.approx(paired)


def test_leftovers_are_paired_after_faces_that_resemble_their_person():
    assert pairing(np.array([[0.6, 0.1], [0.2, -0.5]])) == {0: 0, 1: 1}
    assert pairing(np.array([[-0.1, -0.4], [-0.3, -0.2]])) == {0: 0, 1: 1}


def test_a_picture_of_the_references_themselves_scores_one():
    perfect = score(PICTURE, "two people", WANTED, judges(Finder([who for _, who in PEOPLE[:2]])))
    assert perfect.face_sim == pytest.approx(1)
    assert perfect.dino_i == pytest.approx(1)
    assert perfect.clip_i == pytest.approx(1)
    assert perfect.detection_rate == 1
    assert -1 <= perfect.hps <= 1


def test_a_missing_subject_counts_zero_and_stays_in_the_denominator():
    half = score(PICTURE, "two people", WANTED, judges(Finder([PEOPLE[0][1]])))
    assert half.face_sim == pytest.approx(0.5)
    assert half.dino_i == half.clip_i == pytest.approx(0.5)
    assert half.detection_rate == 0.5
    none = score(PICTURE, "two people", WANTED, judges(Finder([])))
    assert (none.face_sim, none.dino_i, none.clip_i, none.detection_rate, none.num_faces) == (0, 0, 0, 0, 0)
    assert none.clip_t == half.clip_t


def test_order_of_references_and_of_faces_does_not_matter():
    found = [who for _, who in PEOPLE]
    wide = np.concatenate([face for face, _ in PEOPLE], axis=1)
    one = score(wide, "x", WANTED, judges(Finder(found)))
    other = score(wide, "x", WANTED[::-1], judges(Finder(found, [2, 0, 1])))
    assert vars(one) == pytest.approx(vars(other))
    assert one.face_sim == pytest.approx(1)


def test_a_face_that_resembles_nobody_is_located_but_not_recognised():
    stranger = Reference(identity=-PEOPLE[0][1], clip=POOL["0"].clip, dino=POOL["0"].dino)
    seen = score(PICTURE[:, :SIZE], "x", [stranger], judges(Finder([PEOPLE[0][1]])))
    assert seen.face_sim == 0
    assert seen.detection_rate == 1
    assert seen.dino_i == pytest.approx(1)


def test_published_averages_are_means_of_nine_columns():
    for row in COMPARISON.rows:
        assert round(overall_average(row), 4) == pytest.approx(row.average, abs=1e-9)
    assert overall_average(COMPARISON.rows[-1]) == pytest.approx(0.559222, abs=1e-6)
    five = [sum(row.human) / 5 for row in ABLATION.rows]
    assert five == pytest.approx([0.39068, 0.52516, 0.54152, 0.55540], abs=1e-9)
    xverse, ours = COMPARISON.rows[-2], COMPARISON.rows[-1]
    assert ours.human[1] / xverse.human[1] - 1 == pytest.approx(0.2835, abs=1e-4)


def test_metrics_survive_their_file_and_differences_are_paired():
    scores = [score(PICTURE, "x" * n, WANTED, judges(Finder([PEOPLE[0][1]]))) for n in (1, 20, 40)]
    means = summary(scores, INTERVAL)
    stored = as_metrics(means, 3)
    read = from_metrics("arm", stored)
    assert read.num_pictures == 3
    assert read.means["clip_t"].value == pytest.approx(means["clip_t"].value, abs=1e-6)
    assert stored["clip_t_low"] <= stored["clip_t"] <= stored["clip_t_high"]
    assert "arm" in text_table([ArmScores("arm", means, 3)])
    rows = {
        arm: {str(i): vars(s) | {"face_sim": s.face_sim + (1 + i) * shift} for i, s in enumerate(scores)}
        for arm, shift in (("one", 0.0), ("two", 0.125))
    }
    change = changes(["one", "two"], rows, INTERVAL)["two"]
    assert change["face_sim"].value == pytest.approx(0.25)
    assert change["face_sim"].excludes_zero
    assert not change["clip_t"].excludes_zero
    with pytest.raises(ValueError, match="evaluate"):
        from_metrics("arm", {"clip_t": 1.0})
