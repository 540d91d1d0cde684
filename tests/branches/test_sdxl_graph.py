"""The graph of FocusDPO's second backbone tells the truth about paths, parameters and code, as the branch's does."""

import inspect
import os
from importlib import import_module

import pytest
import yaml
from imports import ROOT, closure, module_file

from focusdpo.__main__ import MODULES, SDXL, SECTIONS, params, run_stage, settings
from mcpipe.core.params import taken_from

FOLDER = ROOT / "focusdpo"
GRAPH = yaml.safe_load((FOLDER / "sdxl" / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
OWN, PIPELINE = (yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8")) for folder in (FOLDER, ROOT))
every_stage = pytest.mark.parametrize("name", GRAPH)


def door_of(name):
    """The door's name of a stage; the start has a stage of its own in the graph where arms have a matrix."""
    return f"{SDXL}{name.removesuffix('-start')}"


def run_of(name):
    return import_module(f"focusdpo.{MODULES[door_of(name)]}").run


def model_of(name):
    return inspect.get_annotations(run_of(name), eval_str=True)["params"]


def is_code(dep):
    return dep.endswith(".py") or dep.startswith("../mcpipe/")


@every_stage
def test_command_is_dependencies_then_outputs(name):
    stage = GRAPH[name]
    paths = [dep for dep in stage["deps"] if not is_code(dep)] + stage["outs"]
    assert " ".join(stage["cmd"].split()) == f"python -m focusdpo {door_of(name)} {' '.join(paths)}"
    assert len(inspect.signature(run_of(name)).parameters) == len(paths) + 1
    assert stage["wdir"] == ".."


@every_stage
def test_code_of_a_stage_is_covered_by_its_dependencies(name):
    files = [module_file(module) for module in closure(f"focusdpo.{MODULES[door_of(name)]}")]
    needed = {os.path.relpath(file, FOLDER) for file in files if file.name != "__init__.py"}
    declared = [dep for dep in GRAPH[name]["deps"] if is_code(dep)]

    def covers(dep, file):
        return file == dep or file.startswith(f"{dep}/")

    assert [file for file in needed if not any(covers(dep, file) for dep in declared)] == []
    assert [dep for dep in declared if not any(covers(dep, file) for file in needed)] == []


def has(content, place):
    for key in place.split("."):
        if not isinstance(content, dict) or key not in content:
            return False
        content = content[key]
    return True


@every_stage
def test_a_stage_tracks_its_section_and_every_place_of_a_value(name):
    """In both files, and where the section of SDXL changes them."""
    stage = door_of(name).removeprefix(SDXL)
    tracked = {part for part in GRAPH[name].get("params", []) if isinstance(part, str)}
    shared = {
        part for each in GRAPH[name].get("params", []) if isinstance(each, dict) for part in each["../params.yaml"]
    }
    places = {SECTIONS.get(stage, stage), *taken_from(model_of(name)).values()}
    of_sdxl = {f"sdxl.{place}" for place in places if has(OWN["sdxl"], place)}
    assert tracked == {place for place in places if has(OWN, place)} | of_sdxl
    assert shared == {place for place in places if has(PIPELINE, place)}


@every_stage
def test_settings_are_those_of_the_branch_with_the_changes_of_sdxl(name):
    read = params(door_of(name), model_of(name)).model_dump()
    for key, value in OWN["sdxl"].get(name, {}).items():
        assert read[key] == value
    assert settings()["train"]["form"] == "velocity", "FLUX keeps its own"


def test_the_pairs_are_the_branchs_and_outputs_lie_apart():
    """Otherwise the branch's own table would wait for these stages."""
    branch = yaml.safe_load((FOLDER / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert set(branch["dip"]["outs"]) <= set(GRAPH["encode"]["deps"])
    assert all(out.startswith("data/sdxl/") for stage in GRAPH.values() for out in stage["outs"])
    read = {dep for stage in branch.values() for dep in stage["deps"]}
    assert not any(dep.startswith("data/sdxl") or dep == "data" for dep in read)


@pytest.mark.parametrize(("arguments", "message"), [
    (("sdxl-dip",), "NAME one of dip, encode, .*sdxl-encode, sdxl-train, sdxl-start, sdxl-draw"),
    (("sdxl-draw", "pairs"), "takes the paths PAIRS SAMPLES MODEL PIPELINE IP_ADAPTER IMAGE_ENCODER IMAGES, got 1"),
])  # fmt: skip
def test_faults_of_the_door_are_one_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        run_stage(list(arguments))
