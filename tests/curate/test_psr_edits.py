"""Edits of synthetic targets: which are drawn, what they say, and captions after them."""

import numpy as np
import pytest
from pydantic import ValidationError

from mcpipe.core.records import RejectionError
from mcpipe.curate.psr_edits import check_edit, edit_between, is_edited
from mcpipe.curate.psr_settings import EditsParams

PEOPLE = ("person", "person")
PROMPT = (
    "two people in a park: on the left a person with tan skin, wearing a red shirt and holding a cup; on the right a "
    "person with pale skin, wearing a cap"
)
OTHER = (
    "two people in a street: on the left a person with dark skin, wearing a green coat and holding a book; on the "
    "right a person with red hair, wearing a cap and holding a ball"
)


def test_a_share_of_two_task_types_is_edited_and_every_number_has_its_draw():
    drawn = [is_edited(number, "action", 0.3, 0) for number in range(1000)]
    assert drawn == [is_edited(number, "action", 0.3, 0) for number in range(1000)]
    assert drawn != [is_edited(number, "action", 0.3, 1) for number in range(1000)]
    assert np.mean(drawn) == pytest.approx(0.3, abs=0.05)
    assert all(is_edited(number, "attribute", 1.0, 0) for number in range(20))
    assert not any(is_edited(number, task, 1.0, 0) for number in range(20) for task in ("position", "complex", "three"))
    assert not any(is_edited(number, "action", 0.0, 0) for number in range(100))


def test_an_action_changes_what_is_held_and_leaves_clothes_and_looks():
    edit = edit_between(PROMPT, OTHER, PEOPLE, "action")
    assert edit["edit"].endswith(
        "on the left the person is now holding a book; on the right the person is now holding a ball."
    )
    assert edit["edited_caption"] == (
        "two people in a park: a person wearing a red shirt and holding a book; a person wearing a cap and "
        "holding a ball"
    )


def test_an_attribute_changes_clothes_where_they_differ():
    edit = edit_between(PROMPT, OTHER, PEOPLE, "attribute")
    assert edit["edit"].endswith("background and the style: on the left the person is now wearing a green coat.")
    assert edit["edited_caption"] == "two people in a park: a person wearing a green coat; a person wearing a cap"


@pytest.mark.parametrize("task", ["attribute", "action"])
def test_nothing_of_the_looks_is_in_instruction_and_caption(task):
    for text in edit_between(PROMPT, OTHER, PEOPLE, task).values():
        assert not any(look in text for look in ("tan", "pale", "dark", "skin", "hair"))


@pytest.mark.parametrize(("prompt", "other", "reason"), [
    (PROMPT, PROMPT, "same_again"),
    (PROMPT, "two people in a park: on the left a person; on the right a person", "same_again"),
    (PROMPT, "a person and a person", "no_caption"),
    ("two people in a park: a person, wearing a cap; a person", OTHER, "task_not_said"),
])  # fmt: skip
def test_edits_that_say_nothing_are_refused_by_name(prompt, other, reason):
    with pytest.raises(RejectionError) as caught:
        edit_between(prompt, other, PEOPLE, "attribute")
    assert caught.value.reason == reason
    assert caught.value.detail


def test_every_thing_is_paired_with_the_one_of_its_category():
    prompt = "two people in a park: a man, wearing a red cap; a woman, wearing a blue shirt"
    other = "two people in a park: a woman, wearing a green coat; a man, wearing a red cap"
    edit = edit_between(prompt, other, ("man", "woman"), "attribute")
    assert edit["edited_caption"] == "two people in a park: a man wearing a red cap; a woman wearing a green coat"


def test_an_instruction_in_other_words_names_a_subject():
    assert check_edit("Let the cup tip over.", ("lamp", "cup")) == "Let the cup tip over."
    for text, reason in (("Brighten the scene.", "category_not_named"), ("", "no_text")):
        with pytest.raises(RejectionError) as caught:
            check_edit(text, ("lamp", "cup"))
        assert caught.value.reason == reason


def test_a_share_needs_an_editor():
    assert EditsParams(editor=None, share=0.0).editor is None
    with pytest.raises(ValidationError, match=r"share 0.2 needs edits.editor, the folder of a FluxKontextPipeline"):
        EditsParams(editor=None, share=0.2)
