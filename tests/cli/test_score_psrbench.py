"""``mcpipe score --suite psrbench`` on a miniature of the suite, with a detector and a judge that stand in."""

import argparse
import json
import shutil

import pyarrow.parquet as pq
import pytest
import yaml
from fake_scorers import Encoder, Scorer
from imports import ROOT
from psr_fixtures import StandInJudge, TrueGrounder, write_psrbench

from mcpipe.bench.psr.columns import POLICY
from mcpipe.bench.psr.suite import SUBSETS
from mcpipe.cli import psrbench
from mcpipe.cli.__main__ import scoring_arguments
from mcpipe.cli.score import command
from mcpipe.cli.table import command as benchmark_table
from mcpipe.core.report import read_report
from mcpipe.report.inputs import read_others
from mcpipe.report.page import metrics_of


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The suite and a system's images, drawn once."""
    folder, grounder = tmp_path_factory.mktemp("psr"), TrueGrounder()
    write_psrbench(folder / "suite", folder / "theirs", grounder, position_samples=3)
    return folder, grounder


@pytest.fixture
def place(drawn, tmp_path, monkeypatch):
    """A folder of its own with the suite, images and settings, and models that need no checkpoint."""
    folder, grounder = drawn
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings["models"] = dict.fromkeys(psrbench.MODELS, "none")
    settings["models"]["captioner"] = "judge"
    settings["psrbench"]["grounder"] = "grounder"
    settings["evaluate"]["interval"]["resamples"] = 100
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "config.json").write_text('{"architectures": ["Stand-in"]}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").mkdir()
    for name, model in (("Dino", Encoder()), ("load_preference", Scorer())):
        monkeypatch.setattr(psrbench, name, lambda _, model=model: model)
    monkeypatch.setattr(psrbench, "Qwen2_5VL", lambda _: StandInJudge("[Thought]: so\n[Score]: 9"))
    monkeypatch.setattr(psrbench, "GroundingDino", lambda *_: grounder)
    return tmp_path


def score(*arguments):
    parser = argparse.ArgumentParser()
    scoring_arguments(parser)
    chosen = {"--suite": "psrbench", "--prompts": "suite", "--images": "theirs", "--name": "theirs", "--out": "results"}
    chosen |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    return command(parser.parse_args([word for pair in chosen.items() if pair[1] for word in pair]))


def metrics_in(place, name="theirs"):
    return json.loads((place / "results" / name / "metrics.json").read_text(encoding="utf-8"))


def test_the_whole_suite_is_scored_and_what_the_scripts_drop_is_counted(place):
    text = score()
    metrics = metrics_in(place)
    assert (metrics["suite"], metrics["num_images"], metrics["num_missing"]) == ("psrbench", 15, 0)
    assert metrics["detection_rate"] == 1
    assert 0.9 < metrics["subject_consistency"] <= 1, "each reference shows the person of the image"
    rows = {row["key"]: row for row in pq.read_table(place / "results" / "theirs" / "rows.parquet").to_pylist()}
    assert [rows[f"position-{i:04d}"]["aligned_by"] for i in range(3)] == ["rules", "rules", "judge"]
    assert [rows[f"position-{i:04d}"]["semantic_alignment_scripts"] is None for i in range(3)] == [False, True, True]
    assert rows["four-0001"]["references"] == [f"subjects/four-1-{i}.png" for i in range(4)]
    assert metrics["num_position_by_judge"] == 1
    assert metrics["subsets"]["position"]["samples"] == 3
    assert set(metrics["subsets"]) == set(SUBSETS)
    assert metrics["subsets"]["action"]["semantic_alignment"] == 0.9
    assert {"1 images of Position have no known relation in their prompt; the judge scored them", POLICY} <= set(
        text.splitlines()
    )
    assert "secondary source" in text


def test_the_judge_and_the_preference_model_are_recorded(place):
    score()
    metrics = metrics_in(place)
    judge = metrics["judge"]
    assert (judge["model"], judge["architecture"], judge["temperature"]) == ("judge", ["Stand-in"], 0.2)
    assert judge["transformers"] == read_report(place / "results" / "theirs")["versions"]["transformers"]
    assert metrics["preference_model"] == "HPS v2.1"
    before = judge["digest"]
    (place / "judge" / "model.safetensors").write_bytes(b"of another judge")
    score("--name", "zz")
    assert metrics_in(place, "zz")["judge"]["digest"] != before
    table = benchmark_table(argparse.Namespace(results=place / "results"))
    assert "zz is left out: not the same models.captioner as theirs" in table


def test_hpsv3_scores_where_its_folder_is_set(place, monkeypatch):
    loaded = []
    monkeypatch.setattr(psrbench, "load_preference", lambda folder: loaded.append(folder) or Scorer())
    score()
    (place / "v3").mkdir()
    (place / "v3" / "HPSv3.safetensors").write_bytes(b"weights")
    score("--name", "zz", "-S", "psrbench.preference=v3")
    assert [folder.name for folder in loaded] == ["none", "v3"]
    assert metrics_in(place, "zz")["preference_model"] == "HPSv3"
    table = benchmark_table(argparse.Namespace(results=place / "results"))
    assert "zz is left out: not the same models.hps as theirs" in table


def test_missing_broken_and_unknown_files_are_named_and_counted(place):
    (place / "theirs" / "Four" / "0.png").unlink()
    (place / "theirs" / "Three" / "1.png").write_bytes(b"no picture")
    (place / "theirs" / "Postion").mkdir()
    (place / "theirs" / "Position" / "0.png").rename(place / "theirs" / "Postion" / "0000.png")
    (place / "theirs" / "Five").mkdir()
    shutil.copy(place / "theirs" / "Action" / "0.png", place / "theirs" / "Five" / "0.png")
    shutil.copy(place / "theirs" / "Action" / "0.png", place / "theirs" / "Action" / "9.png")
    (place / "suite" / "subjects" / "attribute-0-0.png").unlink()
    (place / "suite" / "Complex.json").unlink()
    text = score()
    metrics, report = metrics_in(place), read_report(place / "results" / "theirs")
    assert (metrics["num_images"], metrics["num_missing"]) == (13, 2)
    assert report["dropped"] == {"missing": 1, "unreadable": 1}
    assert report["facts"]["files_without_prompt"] == ["Action/9.png", "Complex/0.png", "Complex/1.png", "Five/0.png"]
    assert report["facts"]["subsets_missing"] == ["complex"]
    assert "1 subsets are not in the folder; report.json names them" in text.splitlines()
    assert report["facts"]["references_missing"] == ["subjects/attribute-0-0.png"]
    assert {"1 missing, scored 0", "1 unreadable, scored 0"} <= set(text.splitlines())
    assert metrics["subsets"]["four"]["subject_consistency"] == pytest.approx(0.5, abs=0.05)
    assert metrics["subsets"]["four"]["subject_consistency_scripts"] > 0.9, "the scripts drop a missing image"


def test_an_answer_that_cannot_be_parsed_is_missing_and_counted_and_five_in_the_scripts(place, monkeypatch):
    monkeypatch.setattr(psrbench, "Qwen2_5VL", lambda _: StandInJudge("splendid"))
    text = score()
    metrics = metrics_in(place)
    assert metrics["num_unparsed"] == 13
    assert metrics["subsets"]["action"]["semantic_alignment"] is None
    assert metrics["subsets"]["action"]["semantic_alignment_scripts"] == 0.5
    assert "13 images have no valid score of the judge; SA leaves them out" in text.splitlines()


def test_images_may_lie_in_one_folder_under_their_keys_and_the_results_have_the_same_bytes(place):
    score()
    first = (place / "results" / "theirs" / "metrics.json").read_bytes()
    (place / "flat").mkdir()
    for subset in SUBSETS:
        for file in (place / "theirs" / subset.title()).iterdir():
            shutil.copy(file, place / "flat" / f"{subset}-{int(file.stem):04d}.png")
    score("--images", "flat")
    assert (place / "results" / "theirs" / "metrics.json").read_bytes() == first


def test_tables_and_page_show_the_columns_of_the_suite(place):
    score()
    table = benchmark_table(argparse.Namespace(results=place / "results"))
    assert "psrbench:" in table
    assert POLICY in table
    (scores,) = read_others(place / "results", [])["psrbench"]
    assert metrics_of([scores])[:3] == ["subject_consistency", "semantic_alignment", "preference"]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--prompts", ""), "needs its published folder: --prompts DIR"),
        (("-S", "psrbench.grounder=null"), r"needs a Grounding DINO model: -S psrbench\.grounder=DIR"),
        (("-S", "psrbench.attempts=0"), r"psrbench\.attempts"),
        (("--images", "suite/subjects"), r"no file in suite/subjects answers a sample; call one attribute-0000\.png"),
        (("--prompts", "theirs"), r"no subset in theirs"),
        (("--references", "nowhere"), "no folder of references nowhere"),
        (("--out", "suite", "--name", "subjects"), "suite/subjects"),
    ],
)
def test_faults_are_one_clear_line_and_nothing_is_written(place, arguments, fault):
    with pytest.raises((ValueError, FileNotFoundError), match=fault):
        score(*arguments)
    assert not (place / "results").exists()


def test_an_unknown_subset_is_named(place):
    shutil.copy(place / "suite" / "Four.json", place / "suite" / "Five.json")
    with pytest.raises(ValueError, match=r"suite/Five\.json: Five is no subset of PSRBench"):
        score()
