"""The stage of objects on rows of coloured boxes, with stand-ins for the models."""

import numpy as np
import pytest
from object_fixtures import finder, objects_params, row, stand_in_models, write_rows

from mcpipe.core.records import RejectionError
from mcpipe.core.report import read_report
from mcpipe.core.schemas.benchmark import PairPrompt, PoolThing
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.shards import read_shards
from mcpipe.curate.object_rows import object_items
from mcpipe.steps.object_prompts import ObjectPromptsParams, write_object_prompts
from mcpipe.steps.objects import ObjectsWork, sample_of_objects, write_objects

BAD = {
    "no_phrase": {"cond_prompt_1": ""},
    "equal_phrases": {"cond_prompt_1": "Red  box"},
    "no_prompt": {"prompt": None},
    "no_picture": {"tgt_img": None},
    "unreadable_picture": {"cond_img_0": {"bytes": b"GIF89a nonsense", "path": None}},
    "not_in_target": {"tgt_img": row("red", "green")["tgt_img"]},
    "not_in_reference": {"cond_img_1": row("red", "green")["cond_img_1"]},
}


class Judge:
    """Answers every question in the same way, and remembers them."""

    def __init__(self, answer):
        self.said, self.questions = answer, []

    def answer(self, pictures, instruction, *, temperature, seed, max_tokens):
        self.questions.append(instruction)
        return self.said


def one_row(tmp_path, **changes):
    write_rows(tmp_path / "one", [row(**changes)])
    return object_items(tmp_path / "one")[0].inputs()[0]


def test_a_sample_holds_each_object_at_one_index_everywhere(tmp_path):
    sample = sample_of_objects(one_row(tmp_path), finder(), None, objects_params())
    assert sample.target.shape == (32, 32, 3)
    assert sample.references.shape == (2, 16, 16, 3)
    for place, channel in enumerate((0, 2)):  # red, blue
        inside = sample.target[sample.masks[place]].mean(axis=0)
        assert inside.argmax() == channel
        assert sample.references[place].reshape(-1, 3).min(axis=0).argmax() == channel, "on white"
        closeup = sample.closeups[place][sample.closeup_masks[place]].mean(axis=0)
        assert closeup.argmax() == channel
    assert not sample.masks.all(axis=0).any()
    assert sample.closeup_captions == ("a red box", "a blue box")
    assert sample.caption == "a red box and a blue box"


@pytest.mark.parametrize("reason", BAD)
def test_bad_rows_are_refused_by_name(reason, tmp_path):
    with pytest.raises(RejectionError) as caught:
        sample_of_objects(one_row(tmp_path, **BAD[reason]), finder(), None, objects_params())
    assert caught.value.reason == reason
    assert caught.value.detail


@pytest.mark.parametrize(("answer", "reason"), [("Yes.", None), ("No", "answered_no"), ("A box", "no_answer")])
def test_questions_are_asked_of_every_object_and_answered_by_yes(answer, reason, tmp_path):
    judge = Judge(answer)
    params = objects_params(questions=["Is there {phrase}?", "Is {phrase} whole?"])
    if reason is None:
        sample_of_objects(one_row(tmp_path), finder(), judge, params)
        assert judge.questions[:2] == ["Is there red box?", "Is red box whole?"]
        assert len(judge.questions) == 4
    else:
        with pytest.raises(RejectionError) as caught:
            sample_of_objects(one_row(tmp_path), finder(), judge, params)
        assert caught.value.reason == reason


@pytest.fixture
def rows(tmp_path):
    good = [row(number=number) for number in range(6)]
    write_rows(tmp_path / "rows", [*good, *(row(**changes) for changes in BAD.values())], per_file=20, per_group=4)
    return tmp_path / "rows"


def work_in(tmp_path, **changes):
    return ObjectsWork(stand_in_models(tmp_path / "models"), tmp_path / "models", objects_params(**changes))


def test_nothing_is_lost_and_everything_is_counted(rows, tmp_path):
    write_objects(work_in(tmp_path), rows, tmp_path / "samples")
    report = read_report(tmp_path / "samples")
    assert report["seen"] == len(object_items(rows)) == 13
    assert report["dropped"] == dict.fromkeys(sorted(BAD), 1)
    assert report["facts"] | {"thumbnails": 0} == {"things": 12, "train": 4, "val": 2, "thumbnails": 0}
    assert report["facts"]["thumbnails"].keys() == {"kept", *BAD}
    (kept,) = report["facts"]["thumbnails"]["kept"]
    assert [picture[:22] for picture in kept["pictures"]] == ["data:image/png;base64,"] * 3
    samples = list(read_shards(tmp_path / "samples", Sample))
    assert [sample.split for sample in samples].count("val") == 2
    assert len({name for sample in samples for name in sample.names}) == 12
    assert not (tmp_path / "samples" / "cut").exists()


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(rows, tmp_path, monkeypatch):
    import mcpipe.steps.objects as stage

    write_objects(work_in(tmp_path), rows, tmp_path / "whole" / "samples")
    decide, calls = stage.sample_of_objects, []

    def stopping(*arguments, **named):
        calls.append(arguments[0].key)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return decide(*arguments, **named)

    monkeypatch.setattr(stage, "sample_of_objects", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_objects(work_in(tmp_path), rows, tmp_path / "twice" / "samples")
    assert not (tmp_path / "twice" / "samples").exists()
    write_objects(work_in(tmp_path), rows, tmp_path / "twice" / "samples")
    assert len(calls) == 13 + 1, "what was decided is not decided again"
    whole, twice = (
        {f.name: f.read_bytes() for f in (tmp_path / name / "samples").iterdir()} for name in ("whole", "twice")
    )
    assert whole == twice


def test_no_usable_row_is_one_line(tmp_path):
    write_rows(tmp_path / "rows", [row(cond_prompt_0="")])
    with pytest.raises(ValueError, match=r"no row in .* is usable: \{'no_phrase': 1\}"):
        write_objects(work_in(tmp_path), tmp_path / "rows", tmp_path / "samples")
    assert not (tmp_path / "samples").exists()


def test_too_few_usable_rows_are_one_line_with_the_reasons(rows, tmp_path):
    with pytest.raises(ValueError, match=r"6 rows are to be held out, but 6 are usable; .*'no_phrase': 1") as caught:
        write_objects(work_in(tmp_path, num_held_out=6), rows, tmp_path / "samples")
    assert "\n" not in str(caught.value)


def test_held_out_rows_are_the_benchmark_and_others_the_prompts_of_stage_three(rows, tmp_path):
    write_objects(work_in(tmp_path), rows, tmp_path / "samples")
    params = ObjectPromptsParams(num_rl=3, seed=0, min_objects=2, records_per_shard=4)
    write_object_prompts(tmp_path / "samples", tmp_path / "prompts", params)
    samples = {sample.key: sample for sample in read_shards(tmp_path / "samples", Sample)}
    for name, pool, split, number in (("bench", "things", "val", 2), ("rl", "rl_things", "train", 3)):
        prompts = list(read_shards(tmp_path / "prompts" / name, PairPrompt))
        things = {thing.key: thing for thing in read_shards(tmp_path / "prompts" / pool, PoolThing)}
        assert len(prompts) == number
        assert {samples[prompt.key].split for prompt in prompts} == {split}
        assert things.keys() == {name for prompt in prompts for name in prompt.names}
        for prompt in prompts:
            sample = samples[prompt.key]
            assert [things[name].phrase for name in prompt.names] == sample.provenance["phrases"]
            np.testing.assert_array_equal(things[prompt.names[0]].reference, sample.references[0])
    with pytest.raises(ValueError, match="has no sample for bench; see objects.num_held_out"):
        write_object_prompts(tmp_path / "samples", tmp_path / "none", params.model_copy(update={"min_objects": 3}))
