"""Synthetic data with an editing model, a tiny one of FLUX.1 Kontext's class or a stand-in that paints boxes."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from imports import ROOT
from object_fixtures import COLOURS, objects_params, scene, stand_in_models
from synthetic_fixtures import (
    CATEGORIES,
    CHECKS,
    PLACES,
    likeness,
    load_boxes,
    load_writer,
    stop_at_the_third_row,
    subject_models,
    synthetic_params,
    targets_params,
    texts_params,
)

import psr.synthetic
import psr.table
import psr.targets
from mcpipe.core.params import params_of
from mcpipe.core.report import read_report
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.shards import read_shards
from mcpipe.curate.object_rows import object_items
from mcpipe.curate.psr_settings import EditsParams
from mcpipe.curate.psr_texts import DrawnTarget, SyntheticText
from mcpipe.curate.samples import resize
from mcpipe.flux.kontext import KontextEditor
from mcpipe.steps.door import branch_settings
from mcpipe.steps.objects import picture_of, write_objects
from mcpipe.steps.synthetic_edits import REDRAW, EditModels, TargetEditor
from mcpipe.steps.synthetic_people import PeopleRowsWork, SourceParams
from mcpipe.steps.synthetic_rows import RedrawWork, write_synthetic
from mcpipe.steps.synthetic_subjects import LocatedSubjects, SubjectModels
from mcpipe.steps.synthetic_targets import TargetsWork, write_targets
from mcpipe.steps.synthetic_texts import TextsWork, seed_of, write_texts, written_text

EDITED_TASKS = ("action", "attribute")
SAME = 0.9999
"""A cosine that noise does not reach."""
EVERY = EditsParams(editor="editor", share=1.0)


@dataclass(frozen=True)
class Trusting:
    """Takes a fixed part of any image for every subject that is asked for."""

    def locate(self, picture, categories, which):
        number, side = len(categories), len(picture)
        masks = np.zeros((number, side, side), bool)
        masks[:, 4:12, 4:12] = True
        features = np.eye(len(CATEGORIES), dtype=np.float32)[[CATEGORIES.index(category) for category in categories]]
        return LocatedSubjects(
            np.float32([[4, 4, 12, 12]] * number),
            masks,
            masks,
            np.stack([resize(picture, (16, 16))] * number),
            features,
        )


class TrustingModels(SubjectModels):
    """With a finder that takes any image, as a model without training draws noise."""

    def finder(self, kind, params):
        return Trusting()


def drawn_targets(folder, kind=SubjectModels):
    """Texts and targets of things, none of them edited; returns the models that find their subjects."""
    models = kind(*vars(subject_models(stand_in_models(folder / "models"), folder / "models")).values())
    write_texts(TextsWork(folder / "models", "things", texts_params(), load_writer), folder / "texts")
    targets = TargetsWork(folder / "models", "things", models, targets_params(), load_boxes)
    write_targets(targets, folder / "texts", folder / "targets")
    return models


def redrawing(folder, models, editor, **changes):
    """With an adapter that is not there."""
    params = synthetic_params(editor=str(editor), **changes)
    return RedrawWork(folder / "no_generator", folder / "no_adapter", "things", models, folder / "models", params,
                      editor=editor)  # fmt: skip


@pytest.fixture
def redrawn(tmp_path, kontext_folder):
    """Rows whose subjects a tiny Kontext redrew, below a folder."""
    models = drawn_targets(tmp_path, TrustingModels)
    work = redrawing(tmp_path, models, kontext_folder)
    write_synthetic(work, tmp_path / "targets", tmp_path / "synthetic")
    return tmp_path, work


def files_of(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_kontext_redraws_every_crop_after_its_scene_and_the_record_says_so(redrawn, kontext_folder):
    folder, work = redrawn
    editor = KontextEditor(kontext_folder, work.params.editing)
    targets = {target.key: target for target in read_shards(folder / "targets", DrawnTarget)}
    report = read_report(folder / "synthetic")
    assert (report["kept"], report["dropped"]) == (6, {})
    assert report["facts"]["redrawn_by"] == f"FluxKontextPipeline {kontext_folder.name}"
    rows = [item.inputs()[0] for item in object_items(folder / "synthetic")]
    assert len(rows) == len(targets)
    for row, (key, target) in zip(rows, sorted(targets.items()), strict=True):
        assert dict(row.origin) == {"redrawn_by": report["facts"]["redrawn_by"]}
        for place, reference in enumerate(row.references):
            seed = seed_of(f"{key}/{place}/0", work.params.seed)
            drawn = editor.edited(target.crops[place], REDRAW.format(scene=target.scenes[place]), seed=seed)
            np.testing.assert_array_equal(picture_of(reference, "reference"), resize(drawn, (48, 48)))


def test_an_interrupted_redrawing_by_kontext_ends_with_the_same_bytes(redrawn, monkeypatch):
    folder, work = redrawn
    calls = stop_at_the_third_row(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(work, folder / "targets", folder / "twice" / "synthetic")
    write_synthetic(work, folder / "targets", folder / "twice" / "synthetic")
    assert len(calls) == 6 + 1, "what was decided is not decided again"
    assert files_of(folder / "twice" / "synthetic") == files_of(folder / "synthetic")


def test_the_checks_of_what_kontext_drew_are_those_of_the_adapter(tmp_path, kontext_folder):
    """The random one draws noise, in which a colour that is named may be found, but none like the crop's."""
    strict = {kind: likeness(SAME) for kind in ("things", "people")}
    work = redrawing(tmp_path, drawn_targets(tmp_path), kontext_folder, likeness=strict)
    with pytest.raises(ValueError, match=r"no row is usable: .*; see synthetic in params.yaml") as caught:
        write_synthetic(work, tmp_path / "targets", tmp_path / "out")
    reasons = dict(re.findall(r"'(\w+)': (\d)", str(caught.value)))
    assert reasons.keys() <= {"not_in_reference", "other_subject", "empty_mask"}
    assert sum(map(int, reasons.values())) == 6


def test_without_an_editor_rows_have_no_further_columns(tmp_path):
    models = drawn_targets(tmp_path)
    work = RedrawWork(tmp_path, tmp_path, "things", models, tmp_path, synthetic_params(), load_boxes)
    write_synthetic(work, tmp_path / "targets", tmp_path / "synthetic")
    (file,) = list((tmp_path / "synthetic").glob("*.parquet"))[:1]
    assert pq.read_schema(file).names[-3:] == ["tgt_img", "prompt", "task"]
    assert not {"redrawn_by", "edited", "edit_refused"} & read_report(tmp_path / "synthetic")["facts"].keys()


class Wardrobe:
    """Describes people in red and green; another seed gives them other things to wear and to hold."""

    def __init__(self, clothes=6):
        self.clothes, self.asked = clothes, []

    def answer(self, pictures, instruction, *, temperature, seed, max_tokens):
        self.asked.append(instruction)
        if "person, person" not in instruction:
            return f"one person on a beach: in the middle {re.search(r'a person.*?(?= alone)', instruction)[0]}"
        worn, held = f"hat {seed % self.clothes}", f"cup {seed % self.clothes}"
        people = [f"a person with {colour} skin, wearing a {worn} and holding a {held}" for colour in ("red", "green")]
        return f"two people in a park: on the left {people[0]}; on the right {people[1]}"


def load_wardrobe(_folder):
    return Wardrobe()


def load_one_outfit(_folder):
    return Wardrobe(clothes=1)


class Painter:
    """Paints a blue band below the people of an image, or over the person on the left."""

    def __init__(self, over=False):
        self.over, self.given = over, []

    def edited(self, picture, instruction, *, seed):
        self.given.append((instruction, seed))
        drawn = picture.copy()
        drawn[40:] = COLOURS["blue"]
        if self.over:
            x0, y0, x1, y1 = PLACES["red"]
            drawn[y0:y1, x0:x1] = COLOURS["green"]
        return drawn


def load_painter(_folder, _params):
    return Painter()


def load_careless_painter(_folder, _params):
    return Painter(over=True)


class Denies:
    def answer(self, pictures, instruction, *, temperature, seed, max_tokens):
        return "No."


def load_denier(_folder):
    return Denies()


def write_people(folder, load_editor, writer=load_wardrobe, edits=EVERY, **checks):
    """Texts and targets of people, all of the types action and attribute edited; returns the work of the last step."""
    models = subject_models(stand_in_models(folder / "models"), folder / "models")
    write_texts(TextsWork(folder / "models", "people", texts_params(edits=edits), writer), folder / "texts")
    params = targets_params(edits=edits, edit_checks=CHECKS.model_copy(update=checks))
    editor = EditModels(folder / "models", folder / "models", load_editor, load_denier)
    work = TargetsWork(folder / "models", "people", models, params, load_boxes, edits=editor)
    write_targets(work, folder / "texts", folder / "targets")
    return work


def both(folder):
    """Texts and their targets by key."""
    targets = {target.key: target for target in read_shards(folder / "targets", DrawnTarget)}
    return [(text, targets[text.key]) for text in read_shards(folder / "texts", SyntheticText)]


def test_an_edited_target_has_its_own_caption_and_the_crops_from_before(tmp_path):
    work = write_people(tmp_path, load_painter)
    edited = [(text, target) for text, target in both(tmp_path) if text.task in EDITED_TASKS]
    assert len(edited) == read_report(tmp_path / "targets")["facts"]["edited"] == 3
    texts = read_report(tmp_path / "texts")["facts"]
    assert (texts["edited"], texts["edit_refused"]) == (3, {})
    pair = scene(*((colour, *PLACES[colour]) for colour in ("red", "green")))
    before = work.models.finder("people", work.params).locate(pair, ("person", "person"), "target")
    for text, target in edited:
        assert target.edits == {"edit": text.edits["edit"]}
        assert target.caption == text.edits["edited_caption"] != text.caption
        assert "skin" not in target.caption
        assert (target.image[40:] == COLOURS["blue"]).all()
        np.testing.assert_array_equal(target.crops, before.crops)
    for text, target in both(tmp_path):
        if text.task not in EDITED_TASKS:
            assert (text.edits, target.edits, target.caption) == ({}, {}, text.caption)
            assert not (target.image[40:] == COLOURS["blue"]).any()


def test_samples_say_which_edit_their_target_has(tmp_path):
    work = write_people(tmp_path, load_painter)
    rows = RedrawWork(tmp_path, tmp_path, "people", work.models, tmp_path, synthetic_params(), load_boxes)
    write_synthetic(rows, tmp_path / "targets", tmp_path / "rows")
    assert read_report(tmp_path / "rows")["facts"]["edited"] == 3
    finder = {"min_person_score": 0.5, "min_face_score": 0.5, "detection_size": 64}
    params = SourceParams(**(objects_params(num_held_out=0).model_dump() | finder))
    rows_work = PeopleRowsWork(models=work.models.objects, judge=tmp_path, params=params, people=work.models)
    write_objects(rows_work, tmp_path / "rows", tmp_path / "samples")
    edits = {target.caption: target.edits for _, target in both(tmp_path)}
    samples = list(read_shards(tmp_path / "samples", Sample))
    assert len(samples) == 6
    for sample in samples:
        assert sample.provenance.get("edit") == edits[sample.caption].get("edit")
    assert sum("edit" in sample.provenance for sample in samples) == 3


@pytest.mark.parametrize(("editor", "checks", "reason"), [
    (load_careless_painter, {}, "other_subject"),
    (load_painter, {"questions": ["Is this {phrase}?"]}, "answered_no"),
])  # fmt: skip
def test_a_refused_edit_is_counted_and_the_target_stays(editor, checks, reason, tmp_path):
    write_people(tmp_path, editor, **checks)
    report = read_report(tmp_path / "targets")
    assert (report["kept"], report["dropped"]) == (6, {})
    assert report["facts"]["edit_refused"] == {reason: 3}
    assert report["facts"]["edited"] == 0
    for text, target in both(tmp_path):
        assert target.caption == text.caption
        assert not (target.image[40:] == COLOURS["blue"]).any()
        assert target.edits == ({"edit_refused": reason} if text.task in EDITED_TASKS else {})


def test_a_text_without_a_new_edit_is_counted_and_nothing_is_lost(tmp_path):
    write_people(tmp_path, load_painter, load_one_outfit)
    for stage in ("texts", "targets"):
        report = read_report(tmp_path / stage)
        assert (report["kept"], report["dropped"]) == (6, {})
        assert (report["facts"]["edited"], report["facts"]["edit_refused"]) == (0, {"same_again": 3})


def test_an_edit_is_tried_again_from_another_seed(tmp_path):
    write_people(tmp_path, load_painter)
    text, target = next(pair for pair in both(tmp_path) if pair[0].edits)
    painter = Painter(over=True)
    finder = subject_models(stand_in_models(tmp_path / "models"), tmp_path).finder("people", targets_params())
    drawn = replace(target, edits={}, image=scene(*((colour, *PLACES[colour]) for colour in ("red", "green"))))
    TargetEditor(painter, finder, None, "people", CHECKS).edited(drawn, text.edits, seed=0)
    (first, seed), (again, other) = painter.given
    assert first == again == text.edits["edit"]
    assert seed != other


def test_a_tiny_kontext_edits_targets_and_is_refused_by_the_finders_reasons(tmp_path, kontext_folder):
    """The random one draws noise in place of people."""

    def load_kontext(_folder, params):
        return KontextEditor(kontext_folder, params)

    write_people(tmp_path, load_kontext, min_similarity={"people": SAME})
    facts = read_report(tmp_path / "targets")["facts"]
    assert facts["edited"] == 0
    assert sum(facts["edit_refused"].values()) == 3
    assert set(facts["edit_refused"]) <= {"not_in_target", "too_many_people", "other_subject", "empty_mask"}


def test_a_tiny_kontext_edits_things_that_any_finder_would_take(tmp_path, kontext_folder):
    models = drawn_targets(tmp_path, TrustingModels)
    target = next(iter(read_shards(tmp_path / "targets", DrawnTarget)))
    edits = EditModels(kontext_folder, tmp_path)
    params = targets_params()
    editor = edits.editor_of("things", models.finder("things", params), CHECKS, params.editing)
    wish = {"edit": "let it snow", "edited_caption": "boxes in the snow"}
    after = editor.edited(target, wish, seed=0)
    drawn = KontextEditor(kontext_folder, params.editing).edited(
        target.image, "let it snow", seed=seed_of(f"{target.key}/edit/0", 0)
    )
    np.testing.assert_array_equal(after.image, resize(drawn, (48, 48)))
    assert (after.caption, after.edits) == ("boxes in the snow", {"edit": "let it snow"})
    np.testing.assert_array_equal(after.crops, target.crops)


def test_interrupted_edits_go_on_and_end_with_the_same_bytes(tmp_path, monkeypatch):
    work = write_people(tmp_path, load_painter)
    edited, calls = TargetEditor.edited, []

    def stopping(self, target, edits, seed):
        calls.append(target.key)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return edited(self, target, edits, seed)

    monkeypatch.setattr(TargetEditor, "edited", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_targets(work, tmp_path / "texts", tmp_path / "twice" / "targets")
    write_targets(work, tmp_path / "texts", tmp_path / "twice" / "targets")
    assert len(calls) == 6 + 1
    assert files_of(tmp_path / "twice" / "targets") == files_of(tmp_path / "targets")


def test_what_is_no_kontext_is_one_line_before_any_target_is_drawn(tmp_path, generator_folder):
    def load_other(_folder, params):
        return KontextEditor(generator_folder, params)

    with pytest.raises(ValueError, match="holds a FluxPipeline, not a FluxKontextPipeline"):
        write_people(tmp_path, load_other)
    assert not (tmp_path / "targets").exists()


class Speaker(Wardrobe):
    """A language model that edits in words of its own."""

    def answer(self, pictures, instruction, *, temperature, seed, max_tokens):
        if instruction.startswith("This prompt describes"):
            self.asked.append(instruction)
            return "Let one person wave."
        if instruction.startswith("Rewrite"):
            self.asked.append(instruction)
            return "a person who waves and a person" if "wave" in instruction else "a person and a person"
        if "alone" in instruction and "person, person" not in instruction:
            return "a person on a beach"
        return super().answer(pictures, instruction, temperature=temperature, seed=seed, max_tokens=max_tokens)


def test_a_language_model_may_say_the_edit_and_describe_its_result():
    params, speaker = texts_params(edits=EVERY, recaption="model"), Speaker()
    texts = [written_text(number, "people", speaker, params) for number in range(6)]
    assert [text.edits for text in texts if text.task in EDITED_TASKS] == [
        {"edit": "Let one person wave.", "edited_caption": "a person who waves and a person"}
    ] * 3
    assert all(text.caption == "a person and a person" for text in texts)
    asked = [instruction for instruction in speaker.asked if instruction.startswith("This prompt describes")]
    assert any("what one of them does" in instruction for instruction in asked)
    assert any("After this change: Let one person wave." in instruction for instruction in speaker.asked)


@pytest.mark.parametrize("stage", ["texts", "targets"])
def test_a_share_without_an_editor_is_one_line_before_any_work(stage):
    content = branch_settings(ROOT, ROOT / "psr")
    content["edits"] = {"editor": None, "share": 0.2}
    model = {"texts": type(texts_params()), "targets": type(targets_params())}[stage]
    with pytest.raises(
        ValueError, match=rf"{stage}.edits: .*share 0.2 needs edits.editor, the folder of a Flux"
    ) as caught:
        params_of(content, stage, model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("share", "editor", "given"), [(0.0, None, None), (0.0, "kontext", None), (0.5, "kontext", "kontext")]
)
def test_the_door_of_targets_gives_an_editor_only_to_a_share(share, editor, given, tmp_path, monkeypatch):
    works = []
    monkeypatch.setattr(psr.targets, "write_targets", lambda work, _texts, _out: works.append(work))
    params = targets_params(edits=EditsParams(editor=editor, share=share))
    psr.targets.run(*[tmp_path] * 7, tmp_path / "judge", tmp_path / "people", params)
    assert works[0].edits == (given and EditModels(Path(given), tmp_path / "judge"))


@pytest.mark.parametrize("editor", [None, "kontext"])
def test_the_door_of_synthetic_gives_the_editor_of_its_settings(editor, tmp_path, monkeypatch):
    works = []
    monkeypatch.setattr(psr.synthetic, "write_synthetic", lambda work, _targets, _out: works.append(work))
    psr.synthetic.run(*[tmp_path] * 9, tmp_path / "people", synthetic_params(editor=editor))
    assert works[0].editor == (editor and Path(editor))


def test_the_funnel_of_the_table_has_edits_if_any_were_asked_for(tmp_path):
    write_people(tmp_path, load_careless_painter)
    funnel = psr.table.funnel_of(read_report(tmp_path / "targets"))
    assert funnel == {"seen": 6, "kept": 6, "dropped": {}, "edited": 0, "edit_refused": {"other_subject": 3}}
    write_people(tmp_path / "plain", load_painter, edits=EditsParams(editor=None, share=0.0))
    assert psr.table.funnel_of(read_report(tmp_path / "plain" / "targets")) == {"seen": 6, "kept": 6, "dropped": {}}
