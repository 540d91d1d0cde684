"""dvc.yaml tells the truth: about paths, parameters and code, since DVC sees neither imports nor arguments."""

import inspect
import json
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from imports import ROOT, closure, module_file
from processes import output

from mcpipe.core.params import read_params, taken_from
from mcpipe.steps.settings import SECTIONS
from stages import STAGES

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
SETTINGS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


CODE = ("mcpipe/", "stages/")
"""Folders of code: a dependency in them is a room, all of which counts, or a file."""
SHARED = ("references", "storage", "training", "flow", "balance", "idar_scope", "rl_psr", "rl_sampling", "rl_update")
"""Sections from which models take values (see `mcpipe.core.params.TakenFrom`)."""
OF_VERBS = ("psrbench", "grounding")
"""Sections that only verbs and branches read."""
TRACKED_BY_GIT = "data/ablation"
"""What no stage writes and is there in every clone."""


def is_code(path):
    return path.startswith(CODE)


def paths_of(stage, kind):
    return [path for path in PIPELINE["stages"][stage].get(kind, []) if not is_code(path)]


def test_stages_have_one_name_in_four_places():
    assert list(PIPELINE["stages"]) == list(STAGES)
    assert set(STAGES) | {"models", "source", *SHARED, *OF_VERBS} == set(SETTINGS)
    for name, module in STAGES.items():
        assert module[4:] == name
        assert (ROOT / "stages" / f"{module}.py").is_file()


def test_command_is_dependencies_then_outputs():
    for name in STAGES:
        command = f"python -m stages {name} {' '.join(paths_of(name, 'deps') + paths_of(name, 'outs'))}"
        assert " ".join(PIPELINE["stages"][name]["cmd"].split()) == command


def code_of(name):
    """The files that a stage imports, relative to the project."""
    files = {module_file(module) for module in closure(f"stages.{STAGES[name]}")}
    return {str(file.relative_to(ROOT)) for file in files if file.name != "__init__.py"}


def covers(dep, file):
    return file == dep or file.startswith(f"{dep}/")


def test_code_of_a_stage_is_covered_by_its_dependencies():
    """DVC does not follow Python imports (treeverse/dvc#9195), so we do."""
    faults = []
    for name in STAGES:
        declared = [dep for dep in PIPELINE["stages"][name]["deps"] if is_code(dep)]
        needed = code_of(name)
        faults += [f"{name} imports {file}" for file in needed if not any(covers(dep, file) for dep in declared)]
        unused = [dep for dep in declared if not any(covers(dep, file) for file in needed)]
        faults += [f"{name} imports nothing of {dep}" for dep in unused]
    assert faults == []


def test_an_edit_of_page_verbs_or_documents_retrains_nothing():
    edited = [
        "mcpipe/report/page.py",
        "mcpipe/report/page.html.j2",
        "mcpipe/cli/generate.py",
        "docs/rl.md",
        "README.md",
    ]
    edited += ["mcpipe/bench/tables.py", "studies/ablation/table.py", "mcpipe/steps/settings.py"]
    for name in ("train_single", "train_multi", "train_rl", "encode", "samples", "pairs", "generate"):
        for file in edited:
            assert not any(covers(dep, file) for dep in PIPELINE["stages"][name]["deps"]), f"{file} reruns {name}"
    assert any(covers(dep, "mcpipe/report/page.html.j2") for dep in PIPELINE["stages"]["report"]["deps"])


def test_an_edit_of_reinforcement_reruns_no_earlier_training():
    for name in ("train_single", "train_multi"):
        for dep in PIPELINE["stages"][name]["deps"]:
            assert not covers(dep, "mcpipe/train/rl/trainer.py")


def test_stage_tracks_its_own_section_and_says_what_it_does():
    for name in STAGES:
        stage = PIPELINE["stages"][name]
        assert stage["params"] == [name, *sorted(set(taken_from(SECTIONS[name]).values()))]
        assert len(stage["desc"]) > 20, name
        for out in stage["outs"]:
            assert isinstance(out, str), f"{name}: outs are cached, so that the run-cache works"


def test_section_is_complete():
    for name, module in STAGES.items():
        run = import_module(f"stages.{module}").run
        assert inspect.get_annotations(run, eval_str=True)["params"] is SECTIONS[name], name
        read_params(ROOT / "params.yaml", name, SECTIONS[name])


def leaves(content):
    return sum(map(leaves, content.values())) if isinstance(content, dict) else 1


def test_sections_are_short_nesting_counted():
    for name, content in SETTINGS.items():
        assert leaves(content) <= 15, name


def test_the_scorers_of_the_benchmark_are_no_rewards():
    """The first recogniser is both; the benchmark has a second one beside it."""
    read = {name: {dep for dep in paths_of(name, "deps") if "{models." in dep} for name in ("train_rl", "evaluate")}
    assert {"${models.reward_clip}", "${models.reward_hps}"} <= read["train_rl"]
    assert not {"${models.clip}", "${models.hps}"} & read["train_rl"]
    assert read["train_rl"] - {"${models.generator}"} < read["evaluate"], "metrics.json names what rewarded"
    for name in ("clip", "hps"):
        folders = [ROOT / SETTINGS["models"][key] for key in (name, f"reward_{name}")]
        metric, reward = ({file.read_bytes() for file in folder.iterdir() if file.is_file()} for folder in folders)
        assert max(metric, key=len) not in reward, f"{name}: the same weights"


def test_no_stage_reads_the_ground_truth():
    for name in STAGES:
        assert not any("truth" in dep for dep in paths_of(name, "deps"))


def test_what_dvc_draws_is_no_part_of_the_repository():
    """``dvc plots show`` writes there by default."""
    assert "dvc_plots/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_every_number_says_where_it_comes_from():
    lines = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  ") and ":" in line and not line.strip().startswith("#") and line.rstrip()[-1] != ":":
            assert "#" in line or lines[number - 1].strip().startswith("#"), f"params.yaml:{number + 1} has no comment"


def test_the_zoo_is_a_graph_of_its_own():
    """Otherwise a change of the renderer would train every checkpoint anew, and experiments would trip over it."""
    assert (ROOT / "zoo" / "build" / ".dvc").is_dir()
    listed = dvc(ROOT, "stage", "list", "--all", "--name-only").splitlines()
    assert {name.split("@")[0] for name in listed} == set(STAGES)


STAND_IN = """
import hashlib, json, pathlib, sys
name, *paths = sys.argv[1:]
num_outs = {outs}[name]
content = repr((name, json.load(open("params.yaml"))[name]))
for path in sorted(p for d in paths[:-num_outs] for p in [pathlib.Path(d), *pathlib.Path(d).rglob("*")]):
    content += path.read_text() if path.is_file() else path.name
for out in map(pathlib.Path, paths[-num_outs:]):
    out.mkdir(parents=True)
    (out / "digest").write_text(hashlib.sha256(content.encode()).hexdigest())
with open("ran.log", "a") as log:
    log.write(name + "\\n")
"""


def small_settings():
    """All sections, with the keys that dvc.yaml names and one more: DVC reads them seven times for every stage."""
    named = re.findall(r"\$\{(\w+)\.(\w+)\}", (ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    named += [key.split(".")[:2] for stage in PIPELINE["stages"].values() for key in stage["params"] if "." in key]
    sections = {section: {"revision": 0} for section in SETTINGS}
    for section, key in named:
        if section in sections:
            sections[section][key] = SETTINGS[section][key]
    return sections


def without_code():
    """The project's pipeline without its dependencies on code, of which no file changes here."""
    stages = {name: stage | {"deps": paths_of(name, "deps")} for name, stage in PIPELINE["stages"].items()}
    return PIPELINE | {"stages": stages}


@pytest.fixture
def sandbox(tmp_path):
    """The project's own graph and sections of settings, with quick stages that only digest their inputs."""
    shutil.copy(ROOT / ".dvcignore", tmp_path)
    for file, content in (("dvc.yaml", without_code()), ("params.yaml", small_settings())):
        (tmp_path / file).write_text(json.dumps(content), encoding="utf-8")
    for path in (*SETTINGS["models"].values(), TRACKED_BY_GIT):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "weights").write_text("weights", encoding="utf-8")
    (tmp_path / SETTINGS["models"]["generator"] / "tokenizer_2").mkdir()
    outs = {name: len(stage["outs"]) for name, stage in PIPELINE["stages"].items()}
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "__main__.py").write_text(STAND_IN.replace("{outs}", repr(outs)), encoding="utf-8")
    return tmp_path


def dvc(folder, *arguments):
    return python(folder, "-m", "dvc", *arguments)


def python(folder, *arguments):
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"PATH": path, "DVC_NO_ANALYTICS": "true", "HOME": str(folder)}
    return output([sys.executable, *arguments], cwd=folder, env=environment)


REPRODUCTIONS = """
import json, pathlib, sys
from dvc.cli import main

log, ran = pathlib.Path("ran.log"), []
assert main(["init", "--no-scm", "-q"]) == 0
for written in json.loads(pathlib.Path("edits.json").read_text()):
    for file, content in written.items():
        pathlib.Path(file).write_text(content)
    assert main(["repro", "-q"]) == 0
    ran.append(log.read_text().split() if log.exists() else [])
    log.unlink(missing_ok=True)
pathlib.Path("ran.json").write_text(json.dumps(ran))
"""
"""One process, since DVC takes longer to start than to find out what to do."""


def reproduced(folder, *edits):
    """What `dvc repro` runs after each of some edits, which are contents of files by name.

    These are names of stages; a matrix stage counts once per arm.
    """
    (folder / "edits.json").write_text(json.dumps(edits), encoding="utf-8")
    python(folder, "-c", REPRODUCTIONS)
    return json.loads((folder / "ran.json").read_text(encoding="utf-8"))


def downstream(*names):
    """The stages that need, directly or not, what the given ones write; themselves included."""
    stages = set(names)
    for _ in PIPELINE["stages"]:
        written = {out.replace("${item.arm}", "") for name in stages for out in paths_of(name, "outs")}
        for name in PIPELINE["stages"]:
            deps = [resolve(dep).replace("${item.arm}", "") for dep in paths_of(name, "deps")]
            if any(overlaps(dep, out) for dep in deps for out in written):
                stages.add(name)
    return stages


def resolve(path):
    for section in ("models", "source"):
        for key, value in SETTINGS[section].items():
            path = path.replace(f"${{{section}.{key}}}", value)
    return path


def overlaps(dep, out):
    dep, out = dep.rstrip("/") + "/", out.rstrip("/") + "/"
    return dep.startswith(out) or out.startswith(dep)


def test_a_second_repro_does_nothing_and_every_change_reruns_exactly_its_dependants(sandbox):
    settings, edits = small_settings(), [{}, {}]
    for section in ("samples", "pairs"):
        settings[section]["revision"] += 1
        edits.append({"params.yaml": json.dumps(settings)})
    edits.append({f"{SETTINGS['models']['hps']}/weights": "other weights"})
    first, second, *changed, retrained = reproduced(sandbox, *edits)
    assert set(first) == set(STAGES)
    assert second == []
    assert [set(names) for names in changed] == [downstream("samples"), downstream("pairs")]
    direct = {name for name in STAGES if "${models.hps}" in paths_of(name, "deps")}
    assert direct
    assert set(retrained) == downstream(*direct)
