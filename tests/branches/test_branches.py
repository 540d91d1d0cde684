"""The branch's graph tells the truth about paths, parameters and code, and stands apart from the pipeline's."""

import inspect
import os
from importlib import import_module

import pytest
import yaml
from imports import ROOT, closure, module_file

from focusdpo import STAGES
from focusdpo.__main__ import run_stage, settings
from mcpipe.core.params import params_of, taken_from

BRANCH = ROOT / "focusdpo"
GRAPH = yaml.safe_load((BRANCH / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
OWN = yaml.safe_load((BRANCH / "params.yaml").read_text(encoding="utf-8"))


def model_of(name):
    return inspect.get_annotations(import_module(f"focusdpo.{name}").run, eval_str=True)["params"]


def is_code(dep):
    return dep.endswith(".py") or dep.startswith("../mcpipe/")


def test_stages_have_one_name_everywhere():
    assert tuple(GRAPH) == STAGES
    for name in STAGES:
        assert (BRANCH / f"{name}.py").is_file()
        params_of(settings(), name, model_of(name))


@pytest.mark.parametrize("name", STAGES)
def test_command_is_dependencies_then_outputs(name):
    stage = GRAPH[name]
    paths = [dep for dep in stage["deps"] if not is_code(dep)] + stage["outs"]
    assert " ".join(stage["cmd"].split()) == f"python -m focusdpo {name} {' '.join(paths)}"
    run = import_module(f"focusdpo.{name}").run
    assert len(inspect.signature(run).parameters) == len(paths) + 1


@pytest.mark.parametrize("name", STAGES)
def test_code_of_a_stage_is_covered_by_its_dependencies(name):
    files = [module_file(module) for module in closure(f"focusdpo.{name}")]
    needed = {os.path.relpath(file, BRANCH) for file in files if file.name != "__init__.py"}
    declared = [dep for dep in GRAPH[name]["deps"] if is_code(dep)]

    def covers(dep, file):
        return file == dep or file.startswith(f"{dep}/")

    assert [file for file in needed if not any(covers(dep, file) for dep in declared)] == []
    assert [dep for dep in declared if not any(covers(dep, file) for file in needed)] == []


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_tracks_its_section_and_every_place_of_a_value(name):
    tracked = {part for part in GRAPH[name]["params"] if isinstance(part, str)}
    shared = {part for each in GRAPH[name]["params"] if isinstance(each, dict) for part in each["../params.yaml"]}
    places = {name, *taken_from(model_of(name)).values()}
    assert tracked == {place for place in places if place.split(".")[0] in OWN}
    assert shared == {place for place in places if place.split(".")[0] not in OWN}


def test_every_number_says_where_it_comes_from():
    lines = (BRANCH / "params.yaml").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  ") and ":" in line and not line.strip().startswith("#") and line.rstrip()[-1] != ":":
            assert lines[number - 1].strip().startswith("#"), f"params.yaml:{number + 1} has no comment"


def test_the_branch_is_a_graph_of_its_own():
    """Otherwise experiments of the pipeline would run it, too."""
    assert (BRANCH / ".dvc" / "config").is_file()
    ignored = (ROOT / ".dvcignore").read_text(encoding="utf-8").splitlines()
    assert "focusdpo" in ignored
    assert "focusdpo" not in (ROOT / "dvc.yaml").read_text(encoding="utf-8")


def test_the_literal_rate_is_a_preset_and_the_default_another():
    assert OWN["learning_rates"]["paper_literal"] == 1e-8
    assert OWN["learning_rates"]["default"] == 1e-5
    assert OWN["train"]["rank"] == 32
    assert (OWN["train"]["focus"]["tau"], OWN["train"]["focus"]["gamma"]) == (0.1, 0.3)


def test_faults_of_the_door_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    faults = {
        ("trian",): "NAME one of dip, encode, masks, train",
        ("encode", "data/dip"): "takes the paths DIP GENERATOR ENCODED, got 1",
        ("encode", "nowhere", "zoo/generator", "out"): "no folder nowhere; has the stage that writes it run",
        ("table", "start", "results", "out"): "no start/rows.parquet; has the stage that evaluates this arm run",
    }
    for arguments, message in faults.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            run_stage(list(arguments))
