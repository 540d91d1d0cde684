"""Scores of a picture: matching, missing subjects, invariances."""

from dataclasses import replace

import numpy as np
import pytest
from fake_scorers import MARKS, SIZE, Finder, Scorer, metric_scorers, unit
from record_fixtures import pool_face

from mcpipe.bench.copying import copied, pose_distance, same_and_cross, swapped
from mcpipe.bench.intervals import Interval, IntervalParams
from mcpipe.bench.landmarks import face_landmarks
from mcpipe.bench.metrics import missing, pairing, references, score, summary
from mcpipe.bench.tables import (
    FAULTS,
    METRICS,
    POLICY,
    POLICY_CONTROLS,
    POLICY_PUBLIC,
    ArmScores,
    as_metrics,
    changes,
    comparable,
    from_metrics,
    text_table,
)
from mcpipe.objectives.reward import identity_reward
from mcpipe.report.published import ABLATION, COMPARISON, overall_average

INTERVAL = IntervalParams(resamples=200, seed=0)


def person(seed):
    colour = np.random.default_rng(seed).integers(0, 255, 3)
    return np.full((SIZE, SIZE, 3), colour, np.uint8), unit(*np.random.default_rng(seed + 50).random(3))


PEOPLE = [person(seed) for seed in range(3)]
POOL = references(
    [pool_face(str(i), face, embedding=who, landmarks=MARKS * (1 + i)) for i, (face, who) in enumerate(PEOPLE)],
    metric_scorers(Finder([])),
)
REQUIRED = ["0", "1"]
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
    perfect = score(PICTURE, "two people", REQUIRED, POOL, metric_scorers(Finder([who for _, who in PEOPLE[:2]])))
    assert perfect.face_sim == pytest.approx(1)
    assert perfect.dino_i == pytest.approx(1)
    assert perfect.clip_i == pytest.approx(1)
    assert perfect.detection_rate == 1
    assert -1 <= perfect.hps <= 1


def test_pick_score_is_a_column_where_its_weights_are_given_and_no_part_of_the_mean():
    scorers = metric_scorers(Finder([who for _, who in PEOPLE[:2]]))
    without = score(PICTURE, "two people", REQUIRED, POOL, scorers)
    beside = score(PICTURE, "two people", REQUIRED, POOL, replace(scorers, pick_score=Scorer()))
    assert (without.pick_score, beside.pick_score) == (None, 0.28)
    assert beside.overall == without.overall
    tables = {}
    for name, points in (("without", without), ("beside", beside)):
        means = summary(["a", "b"], {"a": ["0"], "b": ["1"]}, [points, points], INTERVAL)
        tables[name] = text_table([ArmScores(name, means, 2)])
    assert "PickScore" in tables["beside"]
    assert "PickScore" not in tables["without"]


@pytest.mark.parametrize(
    ("protocol", "named"),
    [
        ({"models.hps": "a", "models.reward_hps": "b", "models.clip": "c", "models.reward_clip": "d"}, []),
        ({"models.hps": "a", "models.reward_hps": "a", "models.clip": "c", "models.reward_clip": "d"}, ["HPS"]),
        ({"models.clip": "a", "models.reward_clip": "a"}, ["CLIP-T"]),
        ({"models.hps": "a"}, []),
        ({}, []),
    ],
)
def test_a_metric_whose_scorer_also_rewards_is_named_below_the_table(protocol, named):
    arm = ArmScores("a", {"clip_t": Interval(0.5, 0.4, 0.6)}, 2, protocol=protocol)
    assert [line.split()[0] for line in text_table([arm]).splitlines() if "rewards stage 3" in line] == named


def test_arms_with_other_rewards_are_comparable_and_those_with_another_scorer_are_not():
    first = {"models.hps": "a", "models.reward_hps": "b"}
    protocols = [first, first | {"models.reward_hps": "c"}, {"models.hps": "a"}, first | {"models.hps": "c"}]
    kept, lines = comparable([ArmScores(str(place), {}, 2, protocol=each) for place, each in enumerate(protocols)])
    assert [arm.name for arm in kept] == ["0", "1", "2"]
    assert lines == ["3 is left out: not the same models.hps as 0; evaluate or score it again"]


def test_a_missing_subject_counts_zero_and_stays_in_the_denominator():
    half = score(PICTURE, "two people", REQUIRED, POOL, metric_scorers(Finder([PEOPLE[0][1]])))
    assert half.face_sim == pytest.approx(0.5)
    assert half.dino_i == half.clip_i == pytest.approx(0.5)
    assert half.detection_rate == 0.5
    none = score(PICTURE, "two people", REQUIRED, POOL, metric_scorers(Finder([])))
    assert (none.face_sim, none.dino_i, none.clip_i, none.detection_rate, none.num_faces) == (0, 0, 0, 0, 0)
    assert none.clip_t == half.clip_t


def test_order_of_references_and_of_faces_does_not_matter():
    identities = [who for _, who in PEOPLE]
    wide = np.concatenate([face for face, _ in PEOPLE], axis=1)
    expected = score(wide, "x", REQUIRED, POOL, metric_scorers(Finder(identities)))
    other = score(wide, "x", REQUIRED[::-1], POOL, metric_scorers(Finder(identities, [2, 0, 1])))
    for metric in (*METRICS, *FAULTS):
        assert getattr(expected, metric) == pytest.approx(getattr(other, metric)), metric
    assert sorted(expected.cross) == pytest.approx(sorted(other.cross))
    assert expected.face_sim == pytest.approx(1)


def test_a_face_that_resembles_nobody_is_located_but_not_recognised():
    people = POOL | {"0": replace(POOL["0"], identity=-PEOPLE[0][1])}
    seen = score(PICTURE[:, :SIZE], "x", ["0"], people, metric_scorers(Finder([PEOPLE[0][1]])))
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


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [
        ([[0.9, 0.1], [0.2, 0.8]], [False, False]),
        ([[0.6, 0.55], [0.5, 0.1]], [True, False]),  # the second face is the first person once more
        ([[0.7], [0.6]], [False]),
        ([[0.6, 0.1], [0.2, -0.5]], [False, True]),
        ([[0.7, 0.7], [0.7, 0.7]], [False, False]),
        ([[], []], []),
    ],
)
def test_a_face_is_swapped_if_it_resembles_another_wanted_person_more_than_its_own(similarity, expected):
    table = np.array(similarity, np.float64).reshape(2, -1)
    assert sorted(swapped(table, pairing(table))) == sorted(expected)


def test_histograms_take_located_faces_once_with_their_own_and_once_with_every_other_reference():
    table = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.4]])
    assert same_and_cross(table, {0: 0, 1: 1}) == ([0.9, 0.8], [0.2, 0.3, 0.1, 0.4])


def test_a_copy_of_the_reference_has_one_and_chance_has_zero():
    assert copied(0.0, [0.3, 0.5]) == 1
    assert copied(0.4, [0.3, 0.5]) == pytest.approx(0)
    assert copied(0.8, [0.3, 0.5]) == pytest.approx(-1)
    assert copied(0.4, []) is None
    rng = np.random.default_rng(0)
    draws = rng.random((1000, 160))
    assert np.mean([copied(row[0], list(row[1:])) for row in draws]) == pytest.approx(0, abs=0.03)


def test_pasted_people_are_told_from_newly_drawn_ones_whoever_they_are():
    pasted = score(PICTURE, "x", REQUIRED, POOL, metric_scorers(Finder([who for _, who in PEOPLE[:2]])))
    assert pasted.copy_background == pytest.approx(1)
    # Everybody is found as they are in the first reference; the second one's landmarks are twice as far apart.
    first = score(PICTURE[:, :SIZE], "x", ["0"], POOL, metric_scorers(Finder([PEOPLE[0][1]])))
    second = score(PICTURE[:, :SIZE], "x", ["1"], POOL, metric_scorers(Finder([PEOPLE[1][1]])))
    assert first.copy_pose == pytest.approx(1)
    assert second.copy_pose == pytest.approx(1 - 1 / ((1 + 1) / 2), abs=1e-6)
    assert second.copy_background < first.copy_background
    assert first.copy_paste == pytest.approx(1)


def test_landmarks_tell_the_pose_but_neither_place_nor_size():
    box = np.array([10.0, 20.0, 30.0, 60.0])
    marks = np.array([[15, 30], [25, 30], [20, 40], [16, 50], [24, 50]], np.float64)
    seen = face_landmarks(marks, box)
    assert pose_distance(seen, face_landmarks(3 * marks + 7, 3 * box + 7)) == pytest.approx(0, abs=1e-6)
    turned = marks + np.array([[0, 0], [0, 0], [8, 0], [0, 0], [0, 0]])
    assert pose_distance(seen, face_landmarks(turned, box)) == pytest.approx(8 / 40 / np.sqrt(5))


def test_the_heldout_recogniser_judges_by_itself():
    seen = score(PICTURE[:, :SIZE], "x", ["0"], POOL, metric_scorers(Finder([-PEOPLE[0][1]])))
    assert (seen.face_sim, seen.face_sim_heldout) == (0, pytest.approx(1))


ALONE = dict.fromkeys("abc", ())
"""Prompts that share nobody."""


def test_a_missing_picture_counts_zero_where_higher_is_better_and_nothing_elsewhere():
    lost = missing()
    assert {getattr(lost, metric) for metric in METRICS} == {0}
    assert {getattr(lost, metric) for metric in FAULTS} == {None}
    there = score(PICTURE, "x", REQUIRED, POOL, metric_scorers(Finder([who for _, who in PEOPLE[:2]])))
    means = summary(["a", "b", "c"], ALONE, [there, there, lost], INTERVAL)
    for metric in METRICS:
        assert means[metric].value == pytest.approx(2 / 3 * getattr(there, metric)), metric
    assert means["copy_paste"].value == there.copy_paste
    assert "swap_rate" not in summary(["a", "b"], ALONE, [there, lost], INTERVAL)
    assert set(summary(["a", "b"], ALONE, [lost, lost], INTERVAL)) == set(METRICS)


def test_overall_is_the_mean_of_the_papers_five_columns_and_several_pictures_of_a_prompt_count_once():
    there = score(PICTURE, "x", REQUIRED, POOL, metric_scorers(Finder([who for _, who in PEOPLE[:2]])))
    assert there.overall == pytest.approx(np.mean([getattr(there, metric) for metric in METRICS[:5]]))
    means = summary(["a", "b", "b", "b"], ALONE, [missing(), there, there, there], INTERVAL)
    assert means["overall"].value == pytest.approx(there.overall / 2)
    with pytest.raises(ValueError, match="at least two prompts"):
        summary(["a", "a"], ALONE, [there, there], INTERVAL)


def test_metrics_survive_their_file_and_differences_are_paired():
    scores = [score(PICTURE, "x" * n, REQUIRED, POOL, metric_scorers(Finder([PEOPLE[0][1]]))) for n in (1, 20, 40)]
    means = summary(["a", "b", "c"], ALONE, scores, INTERVAL)
    stored = as_metrics(ArmScores("arm", means, 3))
    read = from_metrics("arm", stored)
    assert read.num_pictures == 3
    assert read.means["clip_t"].value == pytest.approx(means["clip_t"].value, abs=1e-6)
    assert stored["clip_t_low"] <= stored["clip_t"] <= stored["clip_t_high"]
    elsewhere = ArmScores("theirs", {"clip_t": means["clip_t"]}, 3, "dreambench", 1)
    lines = text_table([elsewhere, read]).splitlines()
    policies = (POLICY, POLICY_PUBLIC, POLICY_CONTROLS)
    assert [line if line in policies else line.split()[0] for line in lines if line] == [
        "arm", "arm", POLICY, "controls", "arm", POLICY_CONTROLS, "dreambench:", "arm", "theirs", POLICY_PUBLIC
    ]  # fmt: skip
    assert from_metrics("theirs", as_metrics(ArmScores("theirs", means, 3, "dreambench", 1))).num_missing == 1
    rows = {
        arm: {
            str(i): vars(s) | {"references": [], "face_sim": s.face_sim + (1 + i) * shift} for i, s in enumerate(scores)
        }
        for arm, shift in (("one", 0.0), ("two", 0.125))
    }
    change = changes(["one", "two"], rows, INTERVAL)["two"]
    assert change["face_sim"].value == pytest.approx(0.25)
    assert change["face_sim"].excludes_zero
    assert not change["clip_t"].excludes_zero
    rows["two"]["1"]["copy_paste"] = rows["two"]["2"]["copy_paste"] = None
    assert "copy_paste" not in changes(["one", "two"], rows, INTERVAL)["two"]
    with pytest.raises(ValueError, match="evaluate"):
        from_metrics("arm", {"clip_t": 1.0})
