"""Texts of synthetic data: draws of subjects, checks of prompts, captions without looks."""

import numpy as np
import pytest
from pydantic import ValidationError
from synthetic_fixtures import texts_params

from mcpipe.core.records import RejectionError
from mcpipe.curate.psr_settings import NumberShares
from mcpipe.curate.psr_texts import check_named, drawn_subjects, without_looks
from mcpipe.world.thing_captions import describe_things, name_things
from mcpipe.world.things import sample_thing_scene, sample_things

PROMPT = (
    "three things on a table in a park: on the left a striped red and white cup with a blue handle; in the middle an "
    "orange hat; on the right a black lamp"
)
THREE = ("lamp", "cup", "hat")


def test_draws_follow_the_shares_and_belong_to_their_number():
    params = texts_params(numbers=NumberShares(two=0.6, three=0.3, four=0.1))
    drawn = [drawn_subjects(number, "things", params) for number in range(600)]
    assert drawn == [drawn_subjects(number, "things", params) for number in range(600)]
    shares = [np.mean([len(subjects.categories) == count for subjects in drawn]) for count in (2, 3, 4)]
    np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=0.06)
    for subjects in drawn:
        assert len(set(subjects.categories)) == len(subjects.categories)
        of_number = {2: {"background", "position"}, 3: {"three"}, 4: {"four"}}
        assert subjects.task in of_number[len(subjects.categories)]


@pytest.mark.parametrize("changes", [
    {"categories": ["cup", "Cup", "hat", "lamp"]}, {"categories": []}, {"attempts": 0},
])  # fmt: skip
def test_settings_without_sense_are_refused(changes):
    with pytest.raises(ValidationError):
        texts_params(**changes)


def test_shares_that_miss_one_are_refused():
    with pytest.raises(ValidationError, match="two, three, four should add up to 1, found 0.9"):
        NumberShares(two=0.9, three=0.0, four=0.0)


@pytest.mark.parametrize(("text", "categories", "reason"), [
    (PROMPT, THREE, None),
    ("Two CUPS and a lamp.", ("cup", "lamp"), None),
    (PROMPT, ("cup", "bag"), "category_not_named"),
    ("a cupboard and a lamp", ("cup", "lamp"), "category_not_named"),
    ("  ", ("cup",), "no_text"),
])  # fmt: skip
def test_a_prompt_has_to_name_every_category(text, categories, reason):
    if reason is None:
        check_named(text, categories)
    else:
        with pytest.raises(RejectionError) as caught:
            check_named(text, categories)
        assert caught.value.reason == reason


@pytest.mark.parametrize(("task", "caption"), [
    ("three", "three things on a table in a park: on the left a cup; in the middle a hat; on the right a lamp"),
    ("background", "a cup, a hat and a lamp on a table in a park"),
])  # fmt: skip
def test_a_caption_says_nothing_of_looks(task, caption):
    assert without_looks(PROMPT, THREE, task) == caption


@pytest.mark.parametrize("prompt", [
    "a red cup and a black lamp", "two things in a park: a red cup", "two things in a park: a cup; a cup",
    "two things in a park: a red cup and a lamp; a hat", "things: a cup; a lamp", "two things in a park: cup; a lamp",
])  # fmt: skip
def test_a_prompt_of_another_form_has_no_caption(prompt):
    with pytest.raises(RejectionError) as caught:
        without_looks(prompt, ("cup", "lamp"), "position")
    assert caught.value.reason == "no_caption"


PEOPLE = (
    "two people in a park: on the left a person with tan skin, short hair, wearing a red shirt and a hat and "
    "holding a blue ball; on the right a person with a bald head, wearing a striped green shirt"
)
PERSON = ("person", "person")


@pytest.mark.parametrize(("task", "caption"), [
    ("attribute", "two people in a park: a person wearing a red shirt and a hat; a person wearing a striped green "
                  "shirt"),
    ("action", "two people in a park: a person wearing a red shirt and a hat and holding a blue ball; a person wearing "
               "a striped green shirt"),
    ("position", "two people in a park: on the left a person wearing a red shirt and a hat; on the right a person "
                 "wearing a striped green shirt"),
    ("complex", "two people in a park: on the left a person wearing a red shirt and a hat and holding a blue ball; on "
                "the right a person wearing a striped green shirt"),
])  # fmt: skip
def test_a_caption_of_people_says_what_its_task_type_is_about(task, caption):
    assert without_looks(PEOPLE, PERSON, task) == caption


@pytest.mark.parametrize(("prompt", "task"), [
    ("two people in a park: on the left a person with tan skin; on the right a person, wearing a hat", "attribute"),
    ("two people in a park: on the left a person, wearing a cap; on the right a person, wearing a hat", "action"),
    ("two people in a park: on the left a person, wearing a cap; on the right a person, wearing a hat", "complex"),
])  # fmt: skip
def test_a_prompt_without_what_its_task_type_is_about_is_refused(prompt, task):
    with pytest.raises(RejectionError) as caught:
        without_looks(prompt, PERSON, task)
    assert caught.value.reason == "task_not_said"


def test_people_have_one_noun_and_have_to_be_as_many():
    subjects = drawn_subjects(0, "people", texts_params())
    assert subjects.categories == PERSON
    check_named(PEOPLE, PERSON)
    with pytest.raises(RejectionError, match="not 3 times"):
        check_named(PEOPLE, ("person",) * 3)


@pytest.mark.parametrize("seed", range(8))
def test_captions_are_those_that_the_world_gives_to_the_same_scene(seed):
    """Except for the order and the word "and" of three things, which the world leaves open."""
    rng = np.random.default_rng(seed)
    scene = sample_thing_scene(rng, sample_things(rng, 2))
    families = [place.thing.family for place in scene.places]
    captions = {without_looks(describe_things(scene), families, task) for task in ("background", "position")}
    reverse = {" and ".join(text.split(" and ")) for text in captions}
    names = {name_things(scene, np.random.default_rng(number)) for number in range(60)}
    assert reverse <= names
