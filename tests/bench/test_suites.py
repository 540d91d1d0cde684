"""Public benchmarks: their prompt files, read exactly, and how a whole picture is scored."""

import json

import numpy as np
import pytest
from bench_fixtures import DREAM
from fake_scorers import Encoder, Finder, Heldout, Scorer
from real_clips import REAL

from mcpipe.bench.public_metrics import (
    Features,
    PublicScorers,
    embed_reference,
    mean_features,
    missing_image,
    score_image,
)
from mcpipe.bench.published import PUBLISHED, published_lines
from mcpipe.bench.suites import ALL_IMAGES, PUBLIC, Subject, Task, dreambench, dreambench_single, xversebench

XVERSE = [
    {
        "index": 7,
        "input_images": [],
        "position_delta": [0, -32],
        "prompt": "A girl greets another girl beside a mug.",
        "modulation": [
            {
                "type": "adapter",
                "src_inputs": [
                    {"image_path": "assets/human/00_girl.jpg", "caption": "a girl"},
                    {"image_path": "assets/human/01_girl.jpg", "caption": "a girl"},
                    {"image_path": "assets/object/00_mug.jpg", "caption": "a mug"},
                ],
                "use_words": [[0, "girl", "girl"], [1, "girl", "girl", 2], [2, "mug", "mug"]],
            }
        ],
    }
]


def test_dreambench_is_read_in_the_order_of_the_file():
    first, second = dreambench(json.dumps(DREAM))
    subjects = (Subject("./photos/mug/02.jpg", "mug", False), Subject("./photos/cat/00.jpg", "cat", False))
    assert first == Task("0000", "a mug and a cat on the moon", subjects)
    assert (second.key, second.subjects) == ("0001", subjects)


def test_xversebench_tells_people_from_things():
    (task,) = xversebench(json.dumps(XVERSE))
    assert (task.key, task.prompt) == ("0007", "A girl greets another girl beside a mug.")
    assert [subject.is_person for subject in task.subjects] == [True, True, False]
    assert task.subjects[2] == Subject("assets/object/00_mug.jpg", "a mug", False)


@pytest.mark.parametrize(
    ("suite", "content", "fault"),
    [
        ("dreambench", "no json", "Invalid JSON"),
        ("dreambench", "[]", "the list is empty"),
        ("dreambench", json.dumps([*DREAM, {"prompt": "a mug"}]), "2.image_paths: Field required"),
        ("dreambench", json.dumps(XVERSE), "0.image_paths"),
        ("dreambench", json.dumps([{**DREAM[0], "seed": 1}]), "0.seed: Extra inputs"),
        ("dreambench-single", json.dumps(DREAM), "0.image_paths: 2 references; --suite dreambench has several"),
        ("xversebench", json.dumps(DREAM), "0.index"),
        ("xversebench", json.dumps(XVERSE * 2), "two prompts have one index"),
    ],
)
def test_another_file_is_refused_with_the_place_of_its_fault(suite, content, fault):
    with pytest.raises(ValueError, match=fault):
        PUBLIC[suite](content)


def plain(colour):
    return np.full((8, 8, 3), colour, np.uint8)


RED, GREEN, BLUE = (plain(colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200)))


def test_a_whole_picture_is_compared_with_every_reference_and_the_mean_counts():
    scorers = PublicScorers(Encoder(), Encoder(), Scorer(), None, None)
    task = dreambench(json.dumps(DREAM))[0]
    known = {
        subject.picture: embed_reference(subject, picture, scorers)
        for subject, picture in zip(task.subjects, (RED, GREEN), strict=True)
    }
    seen = score_image(RED, task, known, scorers)
    cosine = float(Encoder().pictures([RED])[0] @ Encoder().pictures([GREEN])[0])
    assert seen.dino_i == seen.clip_i == pytest.approx((1 + cosine) / 2)
    assert seen.overall == pytest.approx((seen.clip_t + seen.hps + seen.clip_i + seen.dino_i) / 4)
    assert seen.face_sim is seen.detection_rate is None
    assert missing_image(task, known).overall == 0
    assert missing_image(task, known).face_sim is None


def test_the_cosine_with_all_images_of_a_subject_is_the_mean_of_the_cosines():
    scorers = PublicScorers(Encoder(), Encoder(), Scorer(), None, None)
    (task,) = dreambench_single(json.dumps([{"prompt": "a mug", "image_paths": ["mug/00.jpg"]}]))
    embedded = [embed_reference(task.subjects[0], picture, scorers) for picture in (RED, GREEN, BLUE)]
    seen = score_image(RED, task, {"mug/00.jpg": mean_features(embedded)}, scorers)
    alone = [score_image(RED, task, {"mug/00.jpg": features}, scorers) for features in embedded]
    assert seen.dino_i == seen.clip_i == pytest.approx(np.mean([score.dino_i for score in alone]))
    assert seen.clip_t == alone[0].clip_t


def test_published_rows_name_their_source_and_fit_their_columns():
    assert PUBLISHED.keys() == {*PUBLIC, "psrbench"} - {"xversebench"}
    assert set(PUBLIC) >= ALL_IMAGES
    for suite, table in PUBLISHED.items():
        assert all(len(row) == len(table.columns) for row in table.rows.values()), suite
        lines = published_lines(suite)
        assert len(lines) == len(table.rows) + 3
        assert table.source in lines[1]
    assert published_lines("xversebench") == []


def test_published_gains_are_those_of_the_papers_text():
    single, multi = (PUBLISHED[suite].rows for suite in ("dreambench-single", "dreambench"))
    assert (len(single), len(multi)) == (15, 8)
    assert round(single["UNO + FocusDPO"][0] / single["UNO"][0] - 1, 3) == 0.055
    assert round(100 * (multi["UNO + FocusDPO"][0] / multi["UNO + SFT"][0] - 1), 1) == 5.2


def test_people_count_for_face_sim_and_a_missing_reference_leaves_only_what_needs_none():
    task = xversebench(json.dumps(XVERSE))[0]
    red, green = Encoder().pictures([RED, GREEN])
    scorers = PublicScorers(Encoder(), Encoder(), Scorer(), Finder([red]), Heldout())
    known = {
        subject.picture: Features(red, red, who if subject.is_person else None, who if subject.is_person else None)
        for subject, who in zip(task.subjects, (red, green, red), strict=True)
    }
    seen = score_image(RED, task, known, scorers)
    assert seen.face_sim == seen.face_sim_heldout == pytest.approx(0.5)
    assert (seen.detection_rate, seen.swap_rate, seen.num_faces) == (0.5, 0, 1)
    assert missing_image(task, known).face_sim == 0
    del known["assets/object/00_mug.jpg"]
    half = score_image(RED, task, known, scorers)
    assert half.clip_t == seen.clip_t
    assert half.dino_i is half.overall is half.face_sim is missing_image(task, known).dino_i is None


def test_an_object_has_no_identity_and_an_unseen_face_resembles_nobody():
    scorers = PublicScorers(Encoder(), Encoder(), Scorer(), Finder([]), Finder([]))
    assert embed_reference(Subject("a/b.jpg", "mug", False), RED, scorers).identity is None
    assert not embed_reference(Subject("a/b.jpg", "girl", True), RED, scorers).identity.any()


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"the published files are not at {REAL.parent.name}/{REAL.name}")
def test_the_published_files_are_read_whole():
    dream = dreambench((REAL / "uno_dreambench_multiip.json").read_text(encoding="utf-8"))
    assert len(dream) == 750
    pairs = [task.subjects for task in dream]
    assert len(set(pairs)) == 30
    assert {pairs.count(pair) for pair in set(pairs)} == {25}
    xverse = xversebench((REAL / "XVerseBench_multi.json").read_text(encoding="utf-8"))
    assert len(xverse) == 210
    assert sorted({len(task.subjects) for task in xverse}) == [2, 3]
    people = {subject.picture for task in xverse for subject in task.subjects if subject.is_person}
    assert people
    assert all("/human/" in picture for picture in people)
    assert sum(any(subject.is_person for subject in task.subjects) for task in xverse) == 120
