"""From categories to rows of objects, with stand-ins for all models."""

import pytest
from object_fixtures import objects_params, stand_in_models
from synthetic_fixtures import (
    CATEGORIES,
    BoxDrawer,
    BoxWriter,
    MeanColour,
    described,
    likeness,
    load_boxes,
    load_writer,
    stop_at_the_third_row,
    subject_models,
    synthetic_params,
    targets_params,
    texts_params,
    thing_finder,
)

from mcpipe.core.records import RejectionError
from mcpipe.core.report import read_report
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.shards import read_shards
from mcpipe.curate.psr_settings import NumberShares
from mcpipe.curate.psr_texts import DrawnTarget, SyntheticText
from mcpipe.steps.objects import ObjectsWork, write_objects
from mcpipe.steps.synthetic_rows import Redrawer, RedrawWork, write_synthetic
from mcpipe.steps.synthetic_targets import TargetsWork, drawn_target, write_targets
from mcpipe.steps.synthetic_texts import TextsWork, write_texts, written_text

TEXT = SyntheticText(
    key="000000", task="position", categories=("red box", "blue box"), prompt=described(["red box", "blue box"]),
    caption="2 things in a park: on the left a red box; on the right a blue box",
    scenes=(described(["red box"]), described(["blue box"])), attempts=3, edits={},
)  # fmt: skip


def target_of(text=TEXT):
    return drawn_target(text, BoxDrawer(), thing_finder(), targets_params())


def redrawer(drawer=None, judge=None, range_of_likeness=None, **changes):
    range_of_likeness = range_of_likeness or likeness()
    return Redrawer(drawer or BoxDrawer(), thing_finder(), judge, range_of_likeness, synthetic_params(**changes))


def reason_of(call, *arguments):
    with pytest.raises(RejectionError) as caught:
        call(*arguments)
    assert caught.value.detail
    return caught.value.reason


def test_a_text_has_a_prompt_of_all_subjects_and_a_scene_of_each():
    text = written_text(3, "things", BoxWriter(), texts_params())
    assert all(category in text.prompt for category in text.categories)
    assert all(category in scene for category, scene in zip(text.categories, text.scenes, strict=True))
    assert "striped" in text.prompt
    assert "striped" not in text.caption
    assert text.attempts == 3


def test_an_empty_answer_is_asked_for_again_from_another_seed():
    writer = BoxWriter(mute=1)
    text = written_text(0, "things", writer, texts_params())
    assert text.attempts == 4
    assert writer.asked[0][0] == writer.asked[1][0]
    assert len({seed for _, seed in writer.asked}) == 4


@pytest.mark.parametrize(("writer", "reason"), [
    (BoxWriter(mute=99), "no_text"), (BoxWriter(forget=CATEGORIES), "category_not_named"),
])  # fmt: skip
def test_texts_are_refused_by_name_after_the_last_answer(writer, reason):
    assert reason_of(written_text, 0, "things", writer, texts_params()) == reason
    assert len(writer.asked) == 2


def test_a_task_type_may_add_a_sentence_and_a_model_may_write_the_caption():
    writer = BoxWriter()
    sentence = "Say where every subject stands."
    params = texts_params(recaption="model", sentences={"position": sentence, "background": sentence})
    text = written_text(0, "things", writer, params)
    assert writer.asked[0][0].endswith(sentence)
    assert text.prompt in writer.asked[1][0], "it is asked to rewrite the prompt"
    assert text.attempts == 4


def test_a_target_is_drawn_until_every_subject_is_located():
    drawer = BoxDrawer(miss=1)
    target = drawn_target(TEXT, drawer, thing_finder(), targets_params())
    assert target.attempts == 2
    assert target.crops.shape == (2, 16, 16, 3)
    assert [crop.reshape(-1, 3).min(axis=0).argmax() for crop in target.crops] == [0, 2], "red and blue, on white"
    assert all(hidden for _, hidden, _ in drawer.drawn), "no reference is given"
    assert drawer.drawn[0][2] != drawer.drawn[1][2]
    assert reason_of(drawn_target, TEXT, BoxDrawer(miss=9), thing_finder(), targets_params()) == "not_in_target"


def test_a_redrawn_subject_is_compared_with_its_own_crop():
    row = redrawer().row(target_of())
    assert min(row.similarities) > 0.99
    assert max(row.cross) < 0.5
    assert row.attempts == (1, 1)
    assert row.references.shape == (2, 48, 48, 3)


class Says:
    def __init__(self, said):
        self.said, self.questions = said, []

    def answer(self, pictures, instruction, *, temperature, seed, max_tokens):
        self.questions.append(instruction)
        return self.said


@pytest.mark.parametrize(("changes", "reason"), [
    ({"drawer": BoxDrawer(miss=9)}, "not_in_reference"),
    ({"range_of_likeness": likeness(high=0.99)}, "copied"),
    ({"judge": Says("No."), "questions": ["Does this show {phrase}?"]}, "answered_no"),
    ({"judge": Says("A box"), "questions": ["Does this show {phrase}?"]}, "no_answer"),
])  # fmt: skip
def test_redrawn_subjects_are_refused_by_name(changes, reason):
    assert reason_of(redrawer(**changes).row, target_of()) == reason


class OtherColour(MeanColour):
    """Embeds every redrawn subject far from every crop."""

    def pictures(self, pictures):
        return super().pictures(pictures) * (1 if len(pictures) > 1 else -1)


def test_another_subject_is_refused_with_its_score():
    other = Redrawer(BoxDrawer(), thing_finder(OtherColour()), None, likeness(), synthetic_params())
    with pytest.raises(RejectionError) as caught:
        other.row(target_of())
    assert caught.value.reason == "other_subject"
    assert caught.value.rejection.scores["similarity"] < 0.5


def test_the_judge_is_asked_about_the_category():
    judge = Says("Yes.")
    redrawer(judge=judge, questions=["Does this show {phrase}?"]).row(target_of())
    assert judge.questions == ["Does this show a red box?", "Does this show a blue box?"]


def made(folder, **changes):
    """All steps below a folder; returns the work of the last."""
    models = subject_models(stand_in_models(folder / "models"), folder / "models")
    texts = TextsWork(folder / "models", "things", texts_params(**changes), load_writer)
    write_texts(texts, folder / "texts")
    write_targets(TargetsWork(folder / "models", "things", models, targets_params(), load_boxes), folder / "texts",
                  folder / "targets")  # fmt: skip
    return RedrawWork(folder / "models", folder / "models", "things", models, folder / "models", synthetic_params(),
                      load_boxes)  # fmt: skip


def test_samples_of_mixed_numbers_come_out_and_nothing_is_lost(tmp_path):
    work = made(tmp_path, num_texts=12, numbers=NumberShares(two=0.5, three=0.3, four=0.2))
    write_synthetic(work, tmp_path / "targets", tmp_path / "synthetic")
    report = read_report(tmp_path / "synthetic")
    assert (report["seen"], report["dropped"]) == (12, {})
    assert set(report["facts"]["by_number"]) == {"2", "3", "4"}
    assert report["facts"]["similarity"][0] > report["facts"]["similarity_to_others"][-1]
    objects = ObjectsWork(work.models.objects, tmp_path / "models", objects_params(num_held_out=0))
    write_objects(objects, tmp_path / "synthetic", tmp_path / "samples")
    samples = list(read_shards(tmp_path / "samples", Sample))
    captions = {text.caption: len(text.categories) for text in read_shards(tmp_path / "texts", SyntheticText)}
    assert len(samples) == 12
    for sample in samples:
        assert sample.split == "train"
        assert len(sample.references) == len(sample.names) == captions[sample.caption]


def test_an_interrupted_redrawing_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    work = made(tmp_path)
    write_synthetic(work, tmp_path / "targets", tmp_path / "whole" / "synthetic")
    calls = stop_at_the_third_row(monkeypatch)
    for stops in (True, False):
        try:
            write_synthetic(work, tmp_path / "targets", tmp_path / "twice" / "synthetic")
        except KeyboardInterrupt:
            assert stops
            assert not (tmp_path / "twice" / "synthetic").exists()
    assert len(calls) == 6 + 1, "what was decided is not decided again"
    whole, twice = (
        {file.name: file.read_bytes() for file in (tmp_path / name / "synthetic").iterdir()}
        for name in ("whole", "twice")
    )
    assert whole == twice


@pytest.mark.parametrize("step", ["texts", "targets", "synthetic"])
def test_nothing_usable_is_one_line_with_the_reasons(step, tmp_path):
    models = subject_models(stand_in_models(tmp_path / "models"), tmp_path)
    if step == "texts":
        with pytest.raises(ValueError, match=r"no text is usable: \{'category_not_named': 6\}; see texts"):
            write_texts(TextsWork(tmp_path, "things", texts_params(), load_forgetful), tmp_path / "out")
        return
    work = made(tmp_path)
    if step == "targets":
        with pytest.raises(ValueError, match=r"no target is usable: \{'not_in_target': 6\}; see texts and targets"):
            write_targets(TargetsWork(tmp_path, "things", models, targets_params(), load_blank), tmp_path / "texts",
                          tmp_path / "out")  # fmt: skip
        return
    blank = RedrawWork(tmp_path, tmp_path, "things", models, tmp_path, work.params, load_blank)
    with pytest.raises(ValueError, match=r"no row is usable: \{'not_in_reference': 6\}; see synthetic"):
        write_synthetic(blank, tmp_path / "targets", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def load_forgetful(_folder):
    return BoxWriter(forget=CATEGORIES)


def load_blank(_generator, _adapter, _params):
    return BoxDrawer(miss=10**6)


def test_targets_keep_what_their_texts_say(tmp_path):
    made(tmp_path)
    texts = {text.key: text for text in read_shards(tmp_path / "texts", SyntheticText)}
    for target in read_shards(tmp_path / "targets", DrawnTarget):
        assert (target.caption, target.categories) == (texts[target.key].caption, texts[target.key].categories)
