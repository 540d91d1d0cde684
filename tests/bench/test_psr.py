"""PSRBench: its folder, its judge, and one image's scores beside the figures of the published scripts."""

import json

import numpy as np
import pytest
from fake_scorers import Encoder, Scorer
from psr_fixtures import StandInJudge, TrueGrounder, write_psrbench

from mcpipe.bench.intervals import IntervalParams
from mcpipe.bench.psr.metrics import PsrReference, PsrScorers, embed_reference, missing_image, score_image
from mcpipe.bench.psr.suite import SAMPLES_PER_SUBSET, SUBSETS, PsrTask, read_suite, reference_file, subset_of
from mcpipe.bench.psr.summary import SCORED, PsrScored, counts, means_with_intervals, subset_means
from mcpipe.bench.published import PUBLISHED
from mcpipe.models.scorers.judge import Judge, parsed, parsed_by_scripts

GOOD = "[Thought]: fine\n[Score]: 8"
ENTRY = {"instruction": "a cat above a dog", "input_path": ["a.png", "b.png"], "category1": "cat", "category2": "dog"}


def painted(*colours):
    """An image of squares of 8 pixels side by side."""
    return np.concatenate([np.full((8, 8, 3), colour, np.uint8) for colour in colours], axis=1)


RED, BLUE, GREY = (200, 0, 0), (0, 0, 200), (90, 90, 90)
SQUARES = [np.array([8.0 * i, 0, 8 * (i + 1), 8]) for i in range(3)]


def scorers(grounder, *answers):
    judge = Judge(StandInJudge(*(answers or (GOOD,))), temperature=0.2, max_tokens=64, attempts=3, seed=7)
    return PsrScorers(grounder, Encoder(), Scorer(), judge)


def task_of(subset="complex", prompt="a cat and a dog", categories=("cat", "dog")):
    return PsrTask(f"{subset}-0000", subset, prompt, ("a.png", "b.png"), categories)


def located(picture, **phrases):
    return TrueGrounder({(picture.tobytes(), phrase): boxes for phrase, boxes in phrases.items()})


def known(categories=("cat", "dog"), second_located=True):
    red, blue = Encoder().pictures([painted(RED), painted(BLUE)])
    pairs = zip(("a.png", "b.png"), categories, strict=True)
    features = (PsrReference(red, red), PsrReference(blue if second_located else None, blue))
    return dict(zip(pairs, features, strict=True))


def test_every_subset_of_the_folder_is_read_with_both_spellings_of_its_keys(tmp_path):
    write_psrbench(tmp_path / "suite", tmp_path / "images", TrueGrounder())
    tasks = read_suite(tmp_path / "suite")
    assert [task.subset for task in tasks] == [subset for subset in SUBSETS for _ in range(2)]
    assert {task.subset: len(task.references) for task in tasks} == dict.fromkeys(SUBSETS, 2) | {"three": 3, "four": 4}
    assert tasks[2].key == "action-0000"
    assert all(reference_file(tmp_path / "suite", path) for task in tasks for path in task.references)


def test_files_and_folders_may_be_misspelt(tmp_path):
    assert [subset_of(name) for name in ("Postion", "attr", "FOUR", "five")] == ["position", "attribute", "four", None]
    (tmp_path / "sujects").mkdir()
    (tmp_path / "sujects" / "cat.png").touch()
    assert reference_file(tmp_path, "subjects/cat.png") == tmp_path / "sujects" / "cat.png"
    assert reference_file(tmp_path, "./sujects/cat.png") == tmp_path / "sujects" / "cat.png"
    assert reference_file(tmp_path, "subjects/dog.png") is reference_file(tmp_path, "animals/cat.png") is None


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"Five.json": [ENTRY]}, r"Five\.json: Five is no subset of PSRBench; there are attribute, .*four"),
        ({"Position.json": [ENTRY], "postion.json": [ENTRY]}, "are the same subset"),
        ({"Three.json": []}, "the list is empty"),
        ({"Three.json": [ENTRY, ENTRY | {"category3": "hen"}]}, r"Three\.json: 1: 2 references and 3 categories"),
        ({"Three.json": [ENTRY, {"instruction": "a"}]}, r"Three\.json: 1\.input_path: Field required"),
        ({"Three.json": "no list"}, r"Three\.json: the file"),
    ],
)
def test_another_folder_is_refused_with_the_place_of_its_fault(tmp_path, files, fault):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=fault):
        read_suite(tmp_path)


def test_a_folder_without_subsets_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"Attribute\.json"):
            read_suite(folder)


@pytest.mark.parametrize(
    ("answer", "score", "in_scripts"),
    [
        (GOOD, 0.8, 0.8),
        ("[Score]: 7.5/10.", 0.75, 0.75),
        ("[Score]: 0\n", 0, 0),
        ("good, 8 of 10", None, 0.5),
        ("[Score]: eight", None, 0.5),
        ("[Score]: 11", None, 1.1),
        ("[Score]: 3\n[Score]: 9", None, 0.3),
        ("[Score]: 8 or so", None, 0.8),
        ("[Score]: 1.2.3", None, None),
        ("", None, 0.5),
    ],
)
def test_an_answer_is_parsed_strictly_and_otherwise_by_the_scripts(answer, score, in_scripts):
    assert parsed(answer) == score
    assert parsed_by_scripts(answer) == in_scripts


def test_the_judge_is_asked_again_with_another_seed_and_then_the_score_is_missing():
    model = StandInJudge("no idea", GOOD)
    judge = Judge(model, temperature=0.2, max_tokens=64, attempts=3, seed=7)
    verdict = judge.verdict(painted(RED), "action", "a cat jumps")
    assert (verdict.score, verdict.in_scripts, verdict.num_attempts) == (0.8, 0.5, 2)
    assert [(pictures, seed) for pictures, _, _, seed, _ in model.asked] == [(1, 7), (1, 8)]
    assert "a cat jumps" in model.asked[0][1]
    assert "actions" in model.asked[0][1]
    never = Judge(StandInJudge("no idea"), temperature=0.2, max_tokens=64, attempts=3, seed=7)
    assert never.verdict(painted(RED), "four", "x") == type(verdict)(None, 0.5, 3)


def test_subjects_are_paired_by_category_and_compared_inside_their_boxes():
    picture = painted(BLUE, RED)
    seen = score_image(picture, task_of(), known(), scorers(located(picture, cat=SQUARES[1:2], dog=SQUARES[:1])))
    assert seen.subject_consistency == seen.subject_consistency_scripts == pytest.approx(1)
    assert (seen.detection_rate, seen.semantic_alignment, seen.aligned_by, seen.preference) == (1, 0.8, "judge", 0.28)
    swapped = score_image(picture, task_of(), known(), scorers(located(picture, cat=SQUARES[:1], dog=SQUARES[1:2])))
    assert swapped.subject_consistency < 0.1, "no assignment mends a wrong pair"


def test_subject_consistency_is_the_mean_of_the_pairs_cosines():
    """Oracle T18: (0.6 + 0.8) / 2."""
    picture = painted(RED, BLUE)
    features = Encoder().pictures([painted(RED), painted(BLUE)])
    across = np.cross(*features) / np.linalg.norm(np.cross(*features))
    turned = [cos * own + np.sqrt(1 - cos**2) * across for own, cos in zip(features, (0.6, 0.8), strict=True)]
    references = {pair: PsrReference(own, own) for pair, own in zip(known(), turned, strict=True)}
    grounder = located(picture, cat=SQUARES[:1], dog=SQUARES[1:2])
    assert score_image(picture, task_of(), references, scorers(grounder)).subject_consistency == pytest.approx(0.7)


def test_a_subject_that_is_not_located_counts_zero_and_the_whole_image_in_the_scripts():
    picture = painted(RED, RED)
    seen = score_image(picture, task_of(), known(), scorers(located(picture, cat=SQUARES[:1])))
    red, blue = Encoder().pictures([painted(RED), painted(BLUE)])
    assert seen.subject_consistency == pytest.approx(0.5)
    assert seen.subject_consistency_scripts == pytest.approx((1 + red @ blue) / 2)
    assert seen.detection_rate == 0.5
    outside = located(picture, cat=[np.array([20.0, 0, 30, 8])], dog=[])
    assert score_image(picture, task_of(), known(), scorers(outside)).subject_consistency == 0


def test_a_reference_that_is_not_located_counts_zero():
    picture = painted(RED, BLUE)
    grounder = located(picture, cat=SQUARES[:1], dog=SQUARES[1:2])
    seen = score_image(picture, task_of(), known(second_located=False), scorers(grounder))
    assert seen.subject_consistency == pytest.approx(0.5)
    assert seen.subject_consistency_scripts == pytest.approx(1)
    features = embed_reference(picture, "hen", scorers(grounder))
    assert features.located is None
    np.testing.assert_allclose(features.in_scripts, Encoder().pictures([picture])[0])


def test_the_most_certain_box_counts_and_the_first_one_in_the_scripts():
    picture = painted(BLUE, RED)

    class Unsorted(TrueGrounder):
        def boxes(self, picture, phrase):
            return np.stack(SQUARES[:2]), np.array([0.4, 0.8]) if phrase == "cat" else np.array([0.8, 0.4])

    seen = score_image(picture, task_of(), known(), scorers(Unsorted()))
    blue, red = Encoder().pictures([painted(BLUE), painted(RED)])
    assert seen.subject_consistency == pytest.approx(1)
    assert seen.subject_consistency_scripts == pytest.approx((red @ blue + 1) / 2)


def test_subjects_of_one_category_take_its_boxes_in_turn():
    picture, both = painted(RED, BLUE), ("cat", "cat")
    seen = score_image(picture, task_of(categories=both), known(both), scorers(located(picture, cat=SQUARES[:2])))
    assert seen.subject_consistency == seen.subject_consistency_scripts == pytest.approx(1)
    single = score_image(picture, task_of(categories=both), known(both), scorers(located(picture, cat=SQUARES[:1])))
    assert (single.subject_consistency, single.detection_rate) == (pytest.approx(0.5), 0.5)


@pytest.mark.parametrize(
    ("prompt", "boxes", "alignment", "in_scripts", "by"),
    [
        ("a cat to the left of a dog", {"cat": SQUARES[:1], "dog": SQUARES[1:2]}, 1, 1, "rules"),
        ("a cat to the right of a dog", {"cat": SQUARES[:1], "dog": SQUARES[1:2]}, 0, 0, "rules"),
        ("a cat to the left of a dog", {"cat": SQUARES[:1]}, 0, 0, "rules"),
        ("a cat next to a dog", {"cat": SQUARES[:1], "dog": SQUARES[1:2]}, 1, None, "rules"),
        ("a cat beside a dog", {"cat": SQUARES[:1], "dog": SQUARES[1:2]}, 0.8, None, "judge"),
    ],
)
def test_position_follows_rules_and_what_the_scripts_drop_is_scored(prompt, boxes, alignment, in_scripts, by):
    picture = painted(RED, BLUE)
    seen = score_image(picture, task_of("position", prompt), known(), scorers(located(picture, **boxes)))
    assert (seen.semantic_alignment, seen.semantic_alignment_scripts, seen.aligned_by) == (alignment, in_scripts, by)


def test_two_of_one_category_have_a_position_which_the_scripts_cannot_see():
    picture, both = painted(RED, BLUE), ("cat", "cat")
    task = task_of("position", "a cat to the left of a cat", both)
    seen = score_image(picture, task, known(both), scorers(located(picture, cat=SQUARES[:2])))
    assert (seen.semantic_alignment, seen.semantic_alignment_scripts) == (1, 0)


def test_a_missing_image_counts_zero_and_a_missing_reference_leaves_the_rest():
    nothing = missing_image(task_of(), known())
    assert (nothing.subject_consistency, nothing.semantic_alignment, nothing.preference) == (0, 0, 0)
    assert nothing.subject_consistency_scripts is nothing.semantic_alignment_scripts is None
    picture = painted(RED, BLUE)
    seen = score_image(picture, task_of(), {}, scorers(located(picture, cat=SQUARES[:1])))
    assert seen.subject_consistency is missing_image(task_of(), {}).subject_consistency is None
    assert seen.semantic_alignment == 0.8


def test_means_keep_what_counts_and_leave_out_what_is_missing():
    picture = painted(RED, BLUE)
    grounder = located(picture, cat=SQUARES[:1], dog=SQUARES[1:2])
    there = score_image(picture, task_of(), known(), scorers(grounder))
    unparsed = score_image(picture, task_of(), known(), scorers(grounder, "no idea"))
    tasks = [PsrTask(f"complex-{i:04d}", "complex", "x", (f"{i}.png", "b.png"), ("cat", "dog")) for i in range(3)]
    scored = [
        PsrScored(tasks[0], "0.png", SCORED, there),
        PsrScored(tasks[1], "1.png", SCORED, unparsed),
        PsrScored(tasks[2], "", "missing", missing_image(tasks[2], {})),
    ]
    means = means_with_intervals(scored, IntervalParams(resamples=100, seed=0))
    assert means["semantic_alignment"].value == pytest.approx(0.4)
    assert means["semantic_alignment_scripts"].value == pytest.approx(0.65)
    assert means["subject_consistency"].value == pytest.approx(1), "a reference is missing, so that 2 samples remain"
    assert means["detection_rate"].value == pytest.approx(2 / 3)
    assert subset_means(scored)["complex"]["semantic_alignment"] == pytest.approx(0.4)
    assert counts(scored) == {"num_unparsed": 1, "num_position_by_judge": 0, "num_not_located": 0}


def test_the_published_gain_of_reinforcement_is_that_of_the_rows():
    rows = PUBLISHED["psrbench"].rows
    assert rows["PSR"][0] / rows["PSR after SFT"][0] - 1 == pytest.approx(0.204, abs=5e-4)
    assert len(SUBSETS) * SAMPLES_PER_SUBSET == 350
