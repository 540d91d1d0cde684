"""People as subjects of synthetic data, with stand-ins for all models: faces are boxes, recognised by their colours."""

import numpy as np
import pytest
from object_fixtures import OBJECTS, encoded, scene, stand_in_models
from synthetic_fixtures import (
    PLACES,
    BoxDrawer,
    ColourFaces,
    Joints,
    likeness,
    subject_models,
    synthetic_params,
    targets_params,
    texts_params,
)

from mcpipe.core.records import RejectionError
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.shards import read_shards
from mcpipe.curate.object_rows import ObjectRow
from mcpipe.curate.psr_texts import SyntheticText
from mcpipe.steps.objects import write_objects
from mcpipe.steps.synthetic_people import PeopleRowsWork, SourceParams, sample_of_people
from mcpipe.steps.synthetic_rows import Redrawer, RedrawWork, write_synthetic
from mcpipe.steps.synthetic_subjects import PeopleFinder, kind_of, own_bodies
from mcpipe.steps.synthetic_targets import TargetsWork, drawn_target, write_targets
from mcpipe.steps.synthetic_texts import TextsWork, write_texts, written_text

WORN = ("a person with tan skin, wearing a red shirt and holding a cup", "a person, wearing a blue shirt")
PROMPT = f"two people in a park: on the left {WORN[0]}; on the right {WORN[1]}"
PERSON = ("person", "person")
TEXT = SyntheticText(
    key="000000", task="position", categories=PERSON, prompt="red and green", caption="two people",
    scenes=("a red one", "a green one"), attempts=3, edits={},
)  # fmt: skip


def people_finder():
    from object_fixtures import ColourSegmenter

    return PeopleFinder(Joints(), ColourSegmenter(), ColourFaces(), 16)


def picture_of(*colours):
    return scene(*((colour, *PLACES[colour]) for colour in colours))


def reason_of(call, *arguments):
    with pytest.raises(RejectionError) as caught:
        call(*arguments)
    assert caught.value.detail
    return caught.value.reason


def test_people_are_found_from_left_to_right_with_the_bodies_of_their_faces():
    subjects = people_finder().locate(picture_of("green", "red"), PERSON, "target")
    np.testing.assert_array_equal(subjects.boxes, [PLACES["red"], PLACES["green"]])
    assert subjects.features.argmax(axis=1).tolist() == [0, 1], "red, then green"
    assert [crop.reshape(-1, 3).min(axis=0).argmax() for crop in subjects.crops] == [0, 1]
    assert subjects.masks.sum(axis=(1, 2)).tolist() == [18 * 16, 18 * 16]


def test_a_face_belongs_to_the_body_whose_eyes_are_nearest_one_to_one():
    faces = np.float32([[0, 0, 10, 10], [20, 0, 30, 10]])
    joints = np.zeros((2, 17, 3), np.float32)
    joints[0, :3, :2], joints[1, :3, :2] = (24, 5), (16, 5)
    assert own_bodies(faces, joints).tolist() == [1, 0]


@pytest.mark.parametrize(("colours", "which", "reason"), [
    (("red",), "target", "not_in_target"), (("red",), "reference", "not_in_reference"),
    (("red", "green", "blue"), "target", "too_many_people"),
])  # fmt: skip
def test_another_number_of_people_is_refused_by_name(colours, which, reason):
    assert reason_of(people_finder().locate, picture_of(*colours), PERSON, which) == reason


def test_a_redrawn_person_has_to_be_the_same_and_no_one_else():
    target = drawn_target(TEXT, BoxDrawer(), people_finder(), targets_params())
    row = Redrawer(BoxDrawer(), people_finder(), None, likeness(), synthetic_params()).row(target)
    assert min(row.similarities) > 0.99
    other = BoxDrawer(colour_of={"red": "green"})
    assert reason_of(Redrawer(other, people_finder(), None, likeness(-1), synthetic_params()).row, target) == (
        "other_subject"
    )


def load_people_boxes(_generator, _adapter, _params):
    return BoxDrawer()


class PeopleWriter:
    """Describes two people in red and green, or one, by the instruction."""

    def answer(self, pictures, instruction, *, temperature, seed, max_tokens):
        people = ["a person with red skin, wearing a hat", "a person with green skin, wearing a cap and holding a cup"]
        if "person, person" in instruction:
            return f"two people in a park: on the left {people[0]}; on the right {people[1]}"
        return f"one person on a beach: in the middle {next(each for each in people if each in instruction)}"


def load_people_writer(_folder):
    return PeopleWriter()


def test_a_scene_has_a_new_place_and_the_description_of_the_target():
    text = written_text(0, "people", PeopleWriter(), texts_params())
    assert text.categories == PERSON
    assert text.scenes[0] == "one person on a beach: in the middle a person with red skin, wearing a hat"
    assert "skin" in text.prompt
    assert "skin" not in text.caption


def test_samples_have_faces_as_references_and_masks(tmp_path):
    objects = stand_in_models(tmp_path / "models")
    models = subject_models(objects, tmp_path / "models")
    write_texts(TextsWork(tmp_path, "people", texts_params(), load_people_writer), tmp_path / "texts")
    write_targets(TargetsWork(tmp_path, "people", models, targets_params(), load_people_boxes), tmp_path / "texts",
                  tmp_path / "targets")  # fmt: skip
    work = RedrawWork(tmp_path, tmp_path, "people", models, tmp_path, synthetic_params(), load_people_boxes)
    write_synthetic(work, tmp_path / "targets", tmp_path / "rows")
    finder = {"min_person_score": 0.5, "min_face_score": 0.5, "detection_size": 64}
    params = SourceParams(**(OBJECTS | {"num_held_out": 0} | finder))
    samples_work = PeopleRowsWork(models=objects, judge=tmp_path, params=params, people=models)
    write_objects(samples_work, tmp_path / "rows", tmp_path / "samples")
    samples = list(read_shards(tmp_path / "samples", Sample))
    assert len(samples) == 6
    for sample in samples:
        assert sample.masks[0, 4:20, 4:22].all()
        assert sample.masks[0].sum() == 18 * 16
        assert sample.references.shape == (2, 16, 16, 3)
        assert len(set(sample.names)) == 2
        assert sample.split == "train"


def test_rows_of_people_are_refused_by_name():
    target, reference = encoded(picture_of("red", "green")), encoded(picture_of("red"))
    row = ObjectRow("a", "two people", PERSON, (reference, reference), target, "")
    assert sample_of_people(row, people_finder()).caption == "two people"
    broken = ObjectRow("a", "two people", PERSON, (reference, target), target, "")
    assert reason_of(sample_of_people, broken, people_finder()) == "too_many_people"
    faulty = ObjectRow("a", "", (), (), b"", "no JSON")
    assert reason_of(sample_of_people, faulty, people_finder()) == "unreadable_row"


def test_folders_have_names_of_kinds(tmp_path):
    assert kind_of(tmp_path / "people") == "people"
    with pytest.raises(ValueError, match="should have the name of a kind: things or people"):
        kind_of(tmp_path / "animals")
