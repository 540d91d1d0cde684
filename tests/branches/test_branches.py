"""A branch's graph tells the truth about paths, parameters and code, and stands apart from the pipeline's."""

import inspect
import os
from importlib import import_module

import pytest
import yaml
from imports import ROOT, closure, module_file

from mcpipe.core.params import params_of, parse_yaml, taken_from
from mcpipe.steps.door import branch_settings, changed_by


class Branch:
    """A folder with a package of stages, a graph and settings of its own."""

    def __init__(self, name, command):
        self.name, self.command, self.folder = name, command, ROOT / name
        self.stages = import_module(name).STAGES
        self.run_stage = import_module(f"{name}.__main__").run_stage
        self.graph = yaml.safe_load((self.folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        self.own = yaml.safe_load((self.folder / "params.yaml").read_text(encoding="utf-8"))
        self.settings = branch_settings(ROOT, self.folder)

    def run(self, stage):
        return import_module(f"{self.name}.{stage}").run

    def model_of(self, stage):
        return inspect.get_annotations(self.run(stage), eval_str=True)["params"]


BRANCHES = {name: Branch(name, command) for name, command in (
    ("focusdpo", "python -m focusdpo"),
    ("objects", "python -P -m objects"),  # one of its modules has the name of the package
    ("psr", "python -P -m psr"),
)}  # fmt: skip
PIPELINE = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
every_branch = pytest.mark.parametrize("branch", BRANCHES.values(), ids=BRANCHES)
every_stage = pytest.mark.parametrize(
    ("branch", "name"), [(branch, name) for branch in BRANCHES.values() for name in branch.stages],
    ids=[f"{branch.name}-{name}" for branch in BRANCHES.values() for name in branch.stages],
)  # fmt: skip


def is_code(dep):
    return dep.endswith(".py") or dep.startswith("../mcpipe/")


@every_branch
def test_stages_have_one_name_everywhere(branch):
    assert tuple(branch.graph) == branch.stages
    for name in branch.stages:
        assert (branch.folder / f"{name}.py").is_file()
        params_of(branch.settings, name, branch.model_of(name))


@every_stage
def test_command_is_dependencies_then_outputs(branch, name):
    stage = branch.graph[name]
    paths = [dep for dep in stage["deps"] if not is_code(dep)] + stage["outs"]
    assert " ".join(stage["cmd"].split()) == f"{branch.command} {name} {' '.join(paths)}"
    assert len(inspect.signature(branch.run(name)).parameters) == len(paths) + 1
    assert len(stage["desc"]) > 20


@every_stage
def test_code_of_a_stage_is_covered_by_its_dependencies(branch, name):
    files = [module_file(module) for module in closure(f"{branch.name}.{name}")]
    needed = {os.path.relpath(file, branch.folder) for file in files if file.name != "__init__.py"}
    declared = [dep for dep in branch.graph[name]["deps"] if is_code(dep)]

    def covers(dep, file):
        return file == dep or file.startswith(f"{dep}/")

    assert [file for file in needed if not any(covers(dep, file) for dep in declared)] == []
    assert [dep for dep in declared if not any(covers(dep, file) for file in needed)] == []


def has(settings, place):
    for key in place.split("."):
        if not isinstance(settings, dict) or key not in settings:
            return False
        settings = settings[key]
    return True


@every_stage
def test_a_stage_tracks_its_section_and_every_place_of_a_value(branch, name):
    """In both files where both have something to say."""
    tracked = {part for part in branch.graph[name].get("params", []) if isinstance(part, str)}
    shared = {
        part
        for each in branch.graph[name].get("params", [])
        if isinstance(each, dict)
        for part in each["../params.yaml"]
    }
    places = {name, *taken_from(branch.model_of(name)).values()}
    assert tracked == {place for place in places if has(branch.own, place)}
    assert shared == {place for place in places if has(PIPELINE, place)}


@every_branch
def test_every_number_says_where_it_comes_from(branch):
    lines = (branch.folder / "params.yaml").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  ") and ":" in line and not line.strip().startswith("#") and line.rstrip()[-1] != ":":
            assert lines[number - 1].strip().startswith("#"), f"params.yaml:{number + 1} has no comment"


@every_branch
def test_a_branch_is_a_graph_of_its_own(branch):
    """Otherwise experiments of the pipeline would run it, too."""
    assert (branch.folder / ".dvc" / "config").is_file()
    ignored = (ROOT / ".dvcignore").read_text(encoding="utf-8").splitlines()
    assert branch.name in [line.lstrip("/") for line in ignored]
    assert f"{branch.name}/" not in (ROOT / "dvc.yaml").read_text(encoding="utf-8")


def test_a_branch_changes_and_completes_the_settings_of_the_pipeline():
    pipeline = {"train": {"steps": 3, "weights": {"id": 0.5, "text": 1.4}}, "other": 1}
    assert changed_by(pipeline, {"train": {"weights": {"id": 1.0}}, "own": {"a": 2}}) == {
        "train": {"steps": 3, "weights": {"id": 1.0, "text": 1.4}}, "other": 1, "own": {"a": 2}
    }  # fmt: skip


def repeated(settings, changes):
    """Values that changes state as they are."""
    for name, value in changes.items():
        before = settings.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            yield from (f"{name}.{key}" for key in repeated(before, value))
        elif name in settings and before == value:
            yield name


@every_branch
def test_a_branch_repeats_no_value_of_the_pipeline(branch):
    """But what its paper's scale changes, which DVC has to see in its own file."""
    preset = branch.folder / "conf" / "scale" / "paper.yaml"
    changed = parse_yaml(preset.read_text(encoding="utf-8")) if preset.is_file() else {}
    assert [place for place in repeated(PIPELINE, branch.own) if not has(changed, place)] == []


def test_focusdpos_literal_rate_is_a_preset_and_the_default_another():
    own = BRANCHES["focusdpo"].own
    assert own["learning_rates"]["paper_literal"] == 1e-8
    assert own["learning_rates"]["default"] == 1e-5
    assert own["train"]["rank"] == 32
    assert (own["train"]["focus"]["tau"], own["train"]["focus"]["gamma"]) == (0.1, 0.3)


def test_objects_are_rewarded_as_the_paper_says():
    rewards = BRANCHES["objects"].settings["train_rl"]["rewards"]
    assert (rewards["text"], rewards["aesthetic"], rewards["identity"]) == (1.4, 0.7, 1.0)


def test_every_stage_of_objects_accepts_the_papers_scale():
    """Both files at the scale of the paper."""
    branch = BRANCHES["objects"]
    pipeline, changes = (
        parse_yaml((folder / "conf" / "scale" / "paper.yaml").read_text(encoding="utf-8"))
        for folder in (ROOT, branch.folder)
    )
    settings = changed_by(changed_by(PIPELINE, pipeline), changed_by(branch.own, changes))
    for name in branch.stages:
        params_of(settings, name, branch.model_of(name))
    assert settings["train_multi"]["num_steps"] == 15000
    assert settings["train_rl"]["rewards"]["identity"] == 1.0
    assert settings["train_rl"]["num_iterations"] == 300
    assert (settings["objects"]["num_held_out"], settings["samples"]["image_size"]) == (1000, 512)
    lines = (branch.folder / "conf" / "scale" / "paper.yaml").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  ") and ":" in line and line.strip()[0] not in "#-" and not line.endswith(":"):
            assert lines[number - 1].strip().startswith("#"), f"{number + 1} has no comment"


@pytest.mark.parametrize(("branch", "arguments", "message"), [
    ("focusdpo", ("trian",), "NAME one of dip, encode, masks, train"),
    ("focusdpo", ("encode", "data/dip"), "takes the paths DIP GENERATOR ENCODED, got 1"),
    ("focusdpo", ("encode", "nowhere", "zoo/generator", "out"), "no folder nowhere; has the stage that writes it run"),
    ("focusdpo", ("table", "start", "results", "out"),
     "no start/rows.parquet; has the stage that evaluates this arm run"),
    ("objects", ("row",), "NAME one of rows, objects, prompts"),
    ("objects", ("objects", "nowhere", "g", "s", "c", "out"), "no folder of objects nowhere"),
    ("objects", ("prompts", "nowhere", "out"), "no folder nowhere; has the stage that writes it run"),
])  # fmt: skip
def test_faults_of_the_door_are_one_line(branch, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        BRANCHES[branch].run_stage(list(arguments))


@pytest.mark.parametrize("branch", [branch for branch in BRANCHES.values() if (branch.folder / "quick.yaml").is_file()],
                         ids=lambda branch: branch.name)  # fmt: skip
def test_quick_runs_have_valid_settings_and_change_known_ones(branch):
    text = (branch.folder / "quick.yaml").read_text(encoding="utf-8")
    changes = parse_yaml(text)
    quick = changed_by(branch.settings, changes)
    for name in branch.stages:
        params_of(quick, name, branch.model_of(name))
    assert list(unknown(branch.settings, changes)) == []
    assert list(repeated(branch.settings, changes)) == []


def unknown(settings, changes):
    """Places that changes name and settings do not."""
    for name, value in changes.items():
        if name not in settings:
            yield name
        elif isinstance(value, dict) and isinstance(settings[name], dict):
            yield from (f"{name}.{key}" for key in unknown(settings[name], value))


def test_the_quick_run_of_focusdpo_is_small():
    branch = BRANCHES["focusdpo"]
    quick = changed_by(branch.settings, parse_yaml((branch.folder / "quick.yaml").read_text(encoding="utf-8")))
    assert quick["dip"]["max_pairs"] <= 20
    assert quick["train"]["num_steps"] <= 5
    assert len(quick["runs"]["arms"]) <= 2


def test_arms_of_psr_are_those_that_its_settings_name():
    from psr.arms import ARMS, COMPARED, arm_and_seed

    runs = BRANCHES["psr"].own["runs"]
    trained = [f"sft_{source['name']}" for source in runs["sources"]] + runs["reinforced"]
    drawn = [arm["name"] for arm in runs["arms"]]
    assert {kind: list(arms) for kind, arms in ARMS.items()} == {kind: runs[kind] for kind in runs["kinds"]}
    assert drawn == runs["things"] + runs["people"]
    assert sorted(drawn) == sorted(trained)
    assert [each["kind"] for each in runs["redrawn"]] == runs["kinds"]
    for kind, pairs in COMPARED.items():
        assert {name for pair in pairs for name in pair} == set(runs[kind])
    assert arm_and_seed("rl_plain-12") == ("rl_plain", 12)
    with pytest.raises(ValueError, match="'dpo-1' should be one of sft_rows, sft_things, rl, rl_plain, sft_clips"):
        arm_and_seed("dpo-1")


def test_psr_rewards_pairs_by_name_over_a_fresh_lora():
    training = BRANCHES["psr"].settings["train_rl"]
    rewards = training["rewards"]
    assert (rewards["identity"], rewards["aesthetic"], rewards["text"], rewards["matching"]) == (0.4, 0.2, 0, "by_name")
    assert training["rank"] is not None
    assert BRANCHES["psr"].settings["train_single"]["positions"] == "frame"
    assert sum(BRANCHES["psr"].settings["texts"]["numbers"].values()) == pytest.approx(1)
