"""Scores of images of objects, with judges that see colours."""

from dataclasses import replace

import numpy as np
import pytest
from fake_scorers import Encoder, Scorer
from object_fixtures import finder, scene
from record_fixtures import pair_prompt

from mcpipe.bench import object_columns
from mcpipe.bench.both_tracks import both_lines, both_tracks
from mcpipe.bench.intervals import Interval, IntervalParams
from mcpipe.bench.metrics import summary
from mcpipe.bench.objects import (
    ObjectScore,
    ObjectScorers,
    beside_controls,
    object_ceiling,
    object_controls,
    score_objects,
    thing_references,
)
from mcpipe.bench.tables import AVERAGED, ArmScores, as_metrics, from_metrics, text_table
from mcpipe.core.schemas.benchmark import GeneratedImage, PoolThing, RealTarget
from mcpipe.core.shards import write_shards
from mcpipe.report.published import COMPARISON

FINDER = finder(8)
SCORERS = ObjectScorers(FINDER.crop, Encoder(), Encoder(), Scorer())
RED, BLUE = ("red", 2, 2, 14, 14), ("blue", 20, 20, 40, 40)
INTERVAL = IntervalParams(resamples=100, seed=0)


def reference(colour):
    return FINDER.crop(scene((colour, 5, 5, 30, 30)), f"{colour} box")


THINGS = thing_references(
    [PoolThing(key=colour, phrase=f"{colour} box", reference=reference(colour)) for colour in ("red", "blue", "green")],
    SCORERS,
)
WANTED = [THINGS["red"], THINGS["blue"]]


def test_objects_like_their_references_score_one_wherever_they_stand():
    points = score_objects(scene(RED, BLUE), "two boxes", WANTED, SCORERS)
    assert (points.dino_i, points.clip_i) == (pytest.approx(1), pytest.approx(1))
    assert (points.detection_rate, points.swap_rate) == (1, 0)
    assert points.overall == pytest.approx(np.mean([points.clip_t, points.dino_i, points.clip_i, points.hps]))
    assert points.face_sim is None
    reordered = score_objects(scene(RED, BLUE), "two boxes", WANTED[::-1], SCORERS)
    assert reordered.dino_i == pytest.approx(points.dino_i)


def test_an_object_that_is_not_found_counts_zero_and_stays_in_the_mean():
    points = score_objects(scene(RED), "two boxes", WANTED, SCORERS)
    assert (points.dino_i, points.clip_i, points.detection_rate) == (pytest.approx(0.5), pytest.approx(0.5), 0.5)
    nothing = score_objects(scene(), "two boxes", WANTED, SCORERS)
    assert (nothing.dino_i, nothing.clip_i, nothing.detection_rate, nothing.swap_rate) == (0, 0, 0, None)


def test_an_object_that_looks_like_another_is_swapped():
    looks_red = replace(THINGS["blue"], dino=THINGS["red"].dino)
    points = score_objects(
        scene(RED, BLUE), "two boxes", [replace(THINGS["red"], dino=THINGS["blue"].dino), looks_red], SCORERS
    )
    assert points.swap_rate == 1
    assert points.own_minus_cross < 0


def test_controls_stand_beside_a_score_and_the_lift_is_what_references_add(tmp_path):
    prompt = pair_prompt("two boxes", "red", "blue")
    for kind, picture in (("no_references", scene()), ("other_people", scene(RED)), ("swapped", scene(RED, BLUE))):
        image = GeneratedImage(key=prompt.key, prompt="two boxes", names=(), seed=0, image=picture)
        write_shards([image], tmp_path / kind, 4)
    controls = object_controls([prompt], tmp_path, THINGS, SCORERS)[prompt.key]
    points = beside_controls(score_objects(scene(RED, BLUE), "two boxes", WANTED, SCORERS), controls)
    assert (points.dino_i_floor, points.dino_i_others, points.dino_i_swapped) == (
        0, pytest.approx(0.5), pytest.approx(1)
    )  # fmt: skip
    assert points.object_lift == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"has no picture for the prompt 'green\+red'"):
        object_controls([pair_prompt("x", "green", "red")], tmp_path, THINGS, SCORERS)


def test_real_targets_are_the_ceiling(tmp_path):
    assert object_ceiling(tmp_path / "none", {}, SCORERS, INTERVAL) == {}
    targets = [
        RealTarget(
            key=f"{number}", names=("red", "blue"), image=scene(RED, *others),
            references=np.stack([reference("red"), reference("blue")]),
        )
        for number, others in enumerate(((BLUE,), ()))
    ]  # fmt: skip
    write_shards(targets, tmp_path / "targets", 4)
    phrases = {name: f"{name} box" for name in ("red", "blue")}
    ceiling = object_ceiling(tmp_path / "targets", phrases, SCORERS, INTERVAL)
    assert ceiling["dino_i_ceiling"].value == pytest.approx(0.75)


def arm(name="train_multi"):
    scores = [
        beside_controls(score_objects(picture, "two boxes", WANTED, SCORERS), {"dino_i_others": 0.25})
        for picture in (scene(RED, BLUE), scene(RED))
    ]
    means = summary(["a", "b"], {"a": ("red", "blue"), "b": ("green", "red")}, scores, INTERVAL)
    return ArmScores(name, means, 2, object_columns.SUITE, 0, {"prompts": "x"})


def test_the_table_of_objects_has_their_columns_controls_and_policy():
    text = text_table([arm()])
    header, row = text.splitlines()[2:4]
    assert header.split()[:3] == ["arm", "images", "missing"]
    assert [label in header for label in ("DINO-I", "CLIP-I", "Swapped", "Face-Sim")] == [True, True, True, False]
    assert "0.750" in row
    assert object_columns.POLICY in text
    assert "Object lift" in text
    assert object_columns.POLICY_CONTROLS in text


def test_metrics_of_objects_are_read_as_they_are_written():
    scores = arm()
    again = from_metrics(scores.name, as_metrics(scores))
    assert again.means.keys() == scores.means.keys()
    assert again.means["object_lift"].value == pytest.approx(scores.means["object_lift"].value, abs=1e-6)
    assert isinstance(ObjectScore(0, 0, 0, 0, 0), ObjectScore)


def test_nine_columns_average_as_in_the_papers_table():
    def scores(name, suite, names, values):
        return ArmScores(name, {m: Interval(v, v, v) for m, v in zip(names, values, strict=True)}, 2, suite)

    for published in COMPARISON.rows:
        people = [scores("train_rl", "mcpipe", AVERAGED, published.human)]
        objects = [scores("train_rl", object_columns.SUITE, object_columns.AVERAGED, published.objects)]
        (both,) = both_tracks(people, objects)
        assert both.overall == pytest.approx(published.average, abs=5e-5)
    assert both_tracks(people, [scores("train_multi", object_columns.SUITE, (), ())]) == []
    assert both_lines("both tracks", [both])[-1].split()[-1] == f"{both.overall:.4f}"
