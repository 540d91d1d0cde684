"""Position rules of PSRBench on hand-worked boxes (oracle T18), and what the published scripts drop."""

import numpy as np
import pytest

from mcpipe.bench.psr.position import iou, listed_relation_in, position_score, relation_in

HERE, RIGHT, OVERLAPPING, LOWER = (
    np.array(box, float) for box in ((0, 0, 100, 100), (200, 0, 300, 100), (50, 0, 150, 100), (0, 150, 100, 250))
)


@pytest.mark.parametrize(
    ("relation", "first", "second", "expected"),
    [
        ("left", HERE, RIGHT, 1),
        ("right", HERE, RIGHT, 0),
        ("right", RIGHT, HERE, 1),
        ("left", HERE, OVERLAPPING, 0.3),
        ("right", OVERLAPPING, HERE, 0.3),
        ("above", HERE, LOWER, 1),
        ("below", HERE, LOWER, 0),
        ("below", LOWER, HERE, 1),
        ("left", HERE, LOWER, 0),
        ("near", HERE, OVERLAPPING, 1),
        ("near", HERE, RIGHT, 1),
        ("near", HERE, np.array([300, 400, 400, 500.0]), 150 / 400),
    ],
)
def test_a_relation_scores_by_direction_and_overlap(relation, first, second, expected):
    assert position_score(relation, first, second) == pytest.approx(expected)


def test_a_diagonal_is_neither_left_nor_right_but_above():
    """|dx| has to be larger than |dy|; the rule of above has no such condition."""
    diagonal = np.array([200, 200, 300, 300.0])
    assert position_score("left", HERE, diagonal) == 0
    assert position_score("above", HERE, diagonal) == 1


def test_equal_boxes_hold_no_relation_but_near():
    assert [position_score(relation, HERE, HERE) for relation in ("left", "right", "above", "below")] == [0] * 4
    assert position_score("near", HERE, HERE) == 1


def test_overlap_is_symmetric_and_zero_without_area():
    assert iou(HERE, OVERLAPPING) == iou(OVERLAPPING, HERE) == pytest.approx(1 / 3)
    assert iou(HERE, HERE) == 1
    assert iou(np.zeros(4), np.zeros(4)) == 0


@pytest.mark.parametrize(
    ("prompt", "relation", "in_scripts"),
    [
        ("A cat is to the left of a dog.", "left", "left"),
        ("A cat on top of a box", "above", "above"),
        ("A cat next to a dog", "near", None),
        ("A cat near a dog", "near", None),
        ("A cat on side of a dog", "near", None),
        ("A cat beside a dog", None, None),
        ("Under a tree", "below", None),
        ("Photographers understand a cat next to a dog", "near", "below"),
        ("A cat under a box, above which a dog sleeps", "below", "above"),
    ],
)
def test_phrases_are_whole_words_in_the_order_of_the_text_and_the_scripts_list_is_shorter(prompt, relation, in_scripts):
    assert relation_in(prompt) == relation
    assert listed_relation_in(prompt) == in_scripts
