"""Sweeps as docs/sweeps.md tells them: queued, side by side, compared, applied, pushed."""

import csv
import json
import os
import re
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from imports import ROOT
from processes import PATIENCE_S, completed, output, started

from mcpipe.bench.intervals import Interval
from mcpipe.bench.tables import COLUMNS, ArmScores, as_headline
from studies.repository import Repository

STAGE = """
import json, pathlib, sys, yaml
name, *deps, out = sys.argv[1:]
settings = yaml.safe_load(open("params.yaml"))[name]
folder = pathlib.Path(out)
folder.mkdir(parents=True)
weight = settings.get("idar", {}).get("weight", 0.0)
(folder / "headline.json").write_text(json.dumps({"multi": {"overall": weight / 4, "face_sim": weight / 2}}))
(folder / "curve.csv").write_text("step,loss\\n0,1.0\\n1," + str(weight) + "\\n")
"""
PIPELINE = """
stages:
  encode: {cmd: python stage.py encode data/encode, deps: [stage.py], params: [encode], outs: [data/encode]}
  train_multi:
    cmd: python stage.py train_multi data/encode data/results
    deps: [stage.py, data/encode]
    params: [train_multi]
    outs: [data/results]
metrics: [data/results/headline.json]
plots: [data/results/curve.csv]
"""
PARAMS = "encode: {size: 4}\ntrain_multi:\n  idar:\n    weight: 0.5\n  seed: 0\n"
WEIGHTS = [0.1, 0.3, 1.0]
SEVERAL = """
import json, sys
from dvc.cli import main

for words in json.loads(sys.argv[1]):
    if main(words):
        sys.exit(f"dvc {words} failed")
    print("\\f", end="", flush=True)
"""
WIDTH = 160
"""Columns of a terminal on which experiments are to be read."""
BESIDE = len("├── 1234567 [chill-lahs]") + len("12:09 PM") + len("train_multi.idar.weight")
"""What stands beside the metrics: the experiment, when it ran, and the setting that was swept."""
GAP = 3
"""Columns that DVC puts between two others."""
BOOKKEEPING = ("Experiment", "rev", "typ", "Created", "parent", "State", "Executor")


def run(folder, *command):
    return output(command, cwd=folder, env=environment_of(folder))


def dvc(folder, *commands):
    """What DVC's commands print; they share one process, which takes longer to start than most of them to run."""
    words = json.dumps([command.split() for command in commands])
    return output([sys.executable, "-c", SEVERAL, words], cwd=folder, env=environment_of(folder)).split("\f")[:-1]


def environment_of(folder):
    environment = os.environ | {"DVC_NO_ANALYTICS": "true", "HOME": str(folder.parent), "COLUMNS": "200"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return environment


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    for name, text in (("stage.py", STAGE), ("dvc.yaml", PIPELINE), ("params.yaml", PARAMS)):
        (folder / name).write_text(text, encoding="utf-8")
    run(folder, "git", "init", "-q")
    run(folder, "git", "config", "user.name", "n")
    run(folder, "git", "config", "user.email", "n@example.org")
    dvc(folder, "init -q")
    (folder / ".dvc" / "config").write_text(
        f"[core]\n    remote = beside\n['remote \"beside\"']\n    url = {tmp_path}/store\n", encoding="utf-8"
    )
    dvc(folder, "repro -q")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "-qm", "start")
    yield folder
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] == str(folder):
            process.kill()


def finished(folder):
    """Names of the finished experiments; none while a worker is writing a reference, which git takes for damage."""
    command = ["git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps/*/*/sweep-*"]
    return sorted(completed(command, cwd=folder).stdout.split())


def test_a_sweep_runs_side_by_side_and_its_best_run_is_applied_and_pushed(project):
    queued = "exp run -q --queue --name sweep -S train_multi.idar.weight=0.1,0.3,1.0"
    dvc(project, queued)
    # A worker of DVC may wait for ever behind the last experiment.
    started(
        [sys.executable, "-m", "dvc", "queue", "start", "-q", "--jobs", "2"], cwd=project, env=environment_of(project)
    )
    names = ["sweep-1", "sweep-2", "sweep-3"]
    start = time.monotonic()
    while finished(project) != names and time.monotonic() < start + PATIENCE_S:
        time.sleep(0.5)
    assert finished(project) == names, dvc(project, "queue status")
    assert "weight: 0.5" in (project / "params.yaml").read_text(encoding="utf-8"), "the checkout is left alone"
    *logs, table, change, curves, _ = dvc(
        project,
        *(f"queue logs {name}" for name in names),
        "exp show --csv --only-changed",
        "exp diff --json sweep-1 sweep-3",
        "plots diff --json sweep-1 sweep-3",
        "exp apply -q sweep-3",
    )
    assert ["Stage 'encode' didn't change, skipping" in log for log in logs] == [True] * 3
    rows = [row for row in csv.DictReader(table.splitlines()) if row["Experiment"].startswith("sweep")]
    columns = [column for column in rows[0] if column not in BOOKKEEPING]
    assert columns == ["multi.overall", "multi.face_sim", "train_multi.idar.weight"]
    assert sorted((float(row[columns[1]]), float(row[columns[2]])) for row in rows) == [(w / 2, w) for w in WEIGHTS]

    assert json.loads(change)["metrics"]["data/results/headline.json"]["multi.face_sim"]["diff"] == pytest.approx(0.45)
    (drawn,) = json.loads(curves)["data"]["data/results/curve.csv"]
    last = {(point["rev"], point["loss"]) for point in drawn["content"]["data"]["values"] if point["step"] == 1}
    assert last == {("sweep-1", "0.1"), ("sweep-3", "1.0")}
    assert yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))["train_multi"] == {
        "idar": {"weight": 1.0},
        "seed": 0,
    }
    assert (
        json.loads((project / "data" / "results" / "headline.json").read_text(encoding="utf-8"))["multi"]["face_sim"]
        == 0.5
    )

    run(project, "git", "init", "-q", "--bare", str(project.parent / "team.git"))
    run(project, "git", "remote", "add", "origin", str(project.parent / "team.git"))
    run(project, "git", "push", "-q", "origin", "HEAD:refs/heads/main")
    run(project, "git", "--git-dir", str(project.parent / "team.git"), "symbolic-ref", "HEAD", "refs/heads/main")
    dvc(project, "exp push -q origin sweep-3")
    assert run(project, "git", "ls-remote", "origin", "refs/exps/*").strip().endswith("/sweep-3")
    clone = project.parent / "clone"
    run(project, "git", "clone", "-q", str(project.parent / "team.git"), str(clone))
    assert Repository(clone).not_in_cache() == ["data/encode/", "data/results/"]
    dvc(clone, "exp pull -q origin sweep-3", "exp apply -q sweep-3")
    assert (
        json.loads((clone / "data" / "results" / "headline.json").read_text(encoding="utf-8"))["multi"]["face_sim"]
        == 0.5
    )


def test_the_metrics_of_all_arms_fit_a_terminal():
    """DVC shows every number of every file under ``metrics:`` as a column, and every dependency that is not dropped."""
    pipeline, settings = (
        yaml.safe_load((ROOT / name).read_text(encoding="utf-8")) for name in ("dvc.yaml", "params.yaml")
    )
    arms = settings["report"]["arms"]
    assert pipeline["metrics"] == [f"data/results/{arm}/headline.json" for arm in arms]
    means = dict.fromkeys(COLUMNS, Interval(0.12345, 0.1, 0.2))
    headlines = [as_headline(ArmScores(arm, means, 24)) for arm in arms]
    columns = [f"{arm}.{metric}" for headline in headlines for arm, row in headline.items() for metric in row]
    assert len(set(columns)) == len(columns), "names of one column only are shown without their file"
    dropped = re.search(
        r"dvc exp show --only-changed --drop '([^']+)'", (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    )
    deps = {dep for stage in pipeline["stages"].values() for dep in stage["deps"] if not dep.startswith("$")}
    deps |= {*settings["models"].values(), *settings["source"].values()}
    assert all(re.match(dropped[1], dep) for dep in deps)
    assert not any(re.match(dropped[1], column) for column in (*columns, *settings))
    assert BESIDE + sum(GAP + len(column) for column in columns) + 2 * GAP <= WIDTH


def test_documented_overrides_name_settings_that_exist():
    files = [ROOT / folder / "params.yaml" for folder in ("psr", "objects", ".")]
    psr, objects, pipeline = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in files)
    settings = psr | objects | pipeline
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    keys = {
        key for page in pages for key in re.findall(r"-S '?([a-z_]+(?:\.[a-z_]+)+)=", page.read_text(encoding="utf-8"))
    }
    assert "train_multi.idar.weight" in keys
    for key in keys - {"section.key"}:
        section = settings
        for part in key.split("."):
            assert part in section, f"{key} is documented, but params.yaml does not have it"
            section = section[part]
