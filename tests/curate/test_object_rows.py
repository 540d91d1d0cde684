"""Rows of objects: where they come from, why they are refused, who is held out."""

import csv
import json

import numpy as np
import pytest
from object_fixtures import encoded, objects_params, row, scene, write_rows

from mcpipe.core.records import RejectionError
from mcpipe.curate.object_rows import object_items
from mcpipe.curate.objects import (
    best_box,
    box_overlap,
    check_boxes,
    check_texts,
    held_out_rows,
    object_window,
    says_yes,
    thing_name,
)


def read(items):
    return [item.inputs()[0] for item in items]


def test_rows_of_parquet_are_read_in_order_across_files_and_groups(tmp_path):
    rows = [row(number=number, prompt=f"prompt {number}") for number in range(7)]
    write_rows(tmp_path / "a", rows, per_file=5, per_group=2)
    items = object_items(tmp_path / "a")
    assert [each.prompt for each in read(items)] == [f"prompt {number}" for number in range(7)]
    assert [item.key for item in items] == sorted({item.key for item in items})
    first = items[0].inputs()[0]
    assert first.phrases == ("red box", "blue box")
    assert first.target == rows[0]["tgt_img"]["bytes"]


def test_a_digest_follows_the_content_of_its_row(tmp_path):
    write_rows(tmp_path / "a", [row(number=0), row(number=1)])
    write_rows(tmp_path / "b", [row(number=0), row(number=2)])
    digests = [[item.digest() for item in object_items(tmp_path / name)] for name in "ab"]
    assert len({*digests[0], *digests[1]}) == 4


def test_a_third_reference_counts_where_the_row_has_it(tmp_path):
    third = {
        "cond_img_2": {"bytes": encoded(scene(("green", 2, 2, 20, 20))), "path": None},
        "cond_prompt_2": "green box",
    }
    write_rows(tmp_path, [row(**third), row(cond_img_2=None, cond_prompt_2=None)], per_file=2)
    assert [len(each.references) for each in read(object_items(tmp_path))] == [3, 2]


def table(folder, name, values):
    (folder / "images").mkdir(parents=True)
    cells = row()
    for column in ("cond_img_0", "cond_img_1", "tgt_img"):
        (folder / "images" / f"{column}.png").write_bytes(cells[column]["bytes"])
        cells[column] = f"images/{column}.png"
    with (folder / name).open("w", encoding="utf-8", newline="") as lines:
        if name.endswith(".csv"):
            writer = csv.DictWriter(lines, list(cells))
            writer.writeheader()
            writer.writerow(cells | values)
        else:
            lines.write(json.dumps(cells | values) + "\n")


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_a_table_names_its_images_by_path(name, tmp_path):
    table(tmp_path, name, {})
    (only,) = read(object_items(tmp_path))
    assert (only.phrases, only.target) == (("red box", "blue box"), row()["tgt_img"]["bytes"])


@pytest.mark.parametrize("path", ["images/gone.png", "../outside.png", ""])
def test_an_image_that_is_not_below_the_folder_is_none(path, tmp_path):
    (tmp_path / "outside.png").write_bytes(encoded(scene()))
    table(tmp_path / "rows", "rows.jsonl", {"tgt_img": path})
    assert read(object_items(tmp_path / "rows"))[0].target == b""


def test_a_line_that_is_no_json_is_a_row_with_a_fault(tmp_path):
    table(tmp_path, "rows.jsonl", {})
    with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as lines:
        lines.write("{broken\n[1]\n")
    assert [bool(each.fault) for each in read(object_items(tmp_path))] == [False, True, True]


def test_folders_of_subjects_become_rows_of_one_reference(tmp_path):
    for name, number in (("dog_toy2", 3), ("lonely", 1)):
        (tmp_path / name).mkdir()
        for each in range(number):
            (tmp_path / name / f"{each:02d}.png").write_bytes(encoded(scene(("red", 1, 1, 9 + each, 9))))
    rows = read(object_items(tmp_path))
    assert [each.phrases for each in rows] == [("dog toy",)] * 3 + [("lonely",)]
    assert rows[0].target == rows[1].references[0]
    assert rows[2].target == rows[0].references[0]
    assert rows[0].prompt == "a photo of a dog toy"
    assert [bool(each.fault) for each in rows] == [False, False, False, True]


def test_a_class_of_dreambooths_list_is_the_phrase(tmp_path):
    (tmp_path / "cat2").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "cat2" / name).write_bytes(encoded(scene()))
    text = "subject_name,class\ncat2,orange cat\n\nPrompts:\n"
    (tmp_path / "prompts_and_classes.txt").write_text(text, encoding="utf-8")
    assert read(object_items(tmp_path))[0].phrases == ("orange cat",)


def test_folders_without_rows_are_refused_in_one_line(tmp_path):
    faults = {"nowhere": "no folder of objects", "empty": "no row of objects in", "both": "leave one of the two"}
    faults |= {"columns": r"rows-000.parquet lacks the column tgt_img", "damaged": "a.parquet is damaged"}
    (tmp_path / "empty").mkdir()
    write_rows(tmp_path / "both", [row()])
    (tmp_path / "both" / "rows.csv").write_text("prompt\n", encoding="utf-8")
    write_rows(tmp_path / "columns", [{name: value for name, value in row().items() if name != "tgt_img"}])
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.parquet").write_bytes(b"PAR1")
    for name, message in faults.items():
        with pytest.raises((FileNotFoundError, ValueError), match=message) as caught:
            object_items(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("prompt", "phrases", "reason"), [
    ("", ["a mug"], "no_prompt"), ("x", [], "no_reference"), ("x", ["a mug", ""], "no_phrase"),
    ("x", ["a Mug", "a  mug"], "equal_phrases"),
])  # fmt: skip
def test_texts_that_say_too_little_are_refused_by_name(prompt, phrases, reason):
    with pytest.raises(RejectionError) as caught:
        check_texts(prompt, phrases)
    assert caught.value.reason == reason


def test_the_most_certain_box_counts_from_a_certainty_on():
    boxes, scores = np.array([[0, 0, 1, 1], [2, 2, 3, 3]], np.float32), np.array([0.4, 0.6])
    np.testing.assert_array_equal(best_box(boxes, scores, 0.6), boxes[1])
    assert best_box(boxes, scores, 0.61) is None
    assert best_box(boxes[:0], scores[:0], 0.0) is None


def test_two_phrases_at_one_place_are_one_object():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8]], np.float32)
    assert box_overlap(*boxes) == pytest.approx(0.8)
    with pytest.raises(RejectionError, match="'a cup' and 'a mug' are one box"):
        check_boxes(boxes, ["a cup", "a mug"], objects_params())
    check_boxes(boxes, ["a cup", "a mug"], objects_params(max_same_box=0.8))


def test_the_square_holds_all_objects():
    masks = np.zeros((2, 20, 50), bool)
    boxes = np.array([[14, 2, 20, 18], [24, 4, 33, 16]], np.float32)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
        mask[y0:y1, x0:x1] = True
    x, y, side, _ = object_window(masks, boxes)
    assert (y, side) == (0, 20)
    assert x <= 14
    assert x + side >= 33
    with pytest.raises(RejectionError, match="no_square_holds_all"):
        object_window(masks, np.array([[0, 2, 6, 18], [44, 4, 50, 16]], np.float32))


@pytest.mark.parametrize(
    ("answer", "verdict"), [("Yes.", True), ("no, it is a cat", False), ("maybe", None), ("", None)]
)
def test_answers_are_yes_no_or_neither(answer, verdict):
    assert says_yes(answer) is verdict


def test_equal_files_with_equal_phrases_are_one_object():
    assert thing_name(b"a", "A red mug") == thing_name(b"a", "A red mug") != thing_name(b"b", "A red mug")
    assert thing_name(b"a", "A red mug").startswith("a_red_mug-")
    assert thing_name(b"a", "\u676f").startswith("thing-")


def test_rows_are_held_out_by_number_and_objects_with_them_if_asked():
    names = {f"{number:02d}": (f"thing {number // 2}", f"own {number}") for number in range(20)}
    rows = held_out_rows(names, 5, "row", 0)
    assert len(rows) == 5
    assert rows != held_out_rows(names, 5, "row", 1)
    assert rows == held_out_rows(dict(reversed(names.items())), 5, "row", 0)
    things = held_out_rows(names, 5, "thing", 0)
    assert len(things) == 4, "objects are in two rows each"
    assert not {names[key][0] for key in things} & {names[key][0] for key in names.keys() - things}
    with pytest.raises(ValueError, match=r"20 rows are to be held out, but 20 are usable; lower objects.num_held_out"):
        held_out_rows(names, 20, "row", 0)
