"""Sweeps as docs/sweeps.md tells them: queued, side by side, compared, applied, pushed."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from imports import ROOT

STAGE = """
import json, pathlib, sys, yaml
name, *deps, out = sys.argv[1:]
settings = yaml.safe_load(open("params.yaml"))[name]
folder = pathlib.Path(out)
folder.mkdir(parents=True)
weight = settings.get("idar", {}).get("weight", 0.0)
metrics = {"face_sim": weight / 2, "face_sim_low": weight / 4, "num_images": 3}
(folder / "metrics.json").write_text(json.dumps(metrics))
"""
PIPELINE = """
stages:
  encode: {cmd: python stage.py encode data/encode, deps: [stage.py], params: [encode], outs: [data/encode]}
  train_multi:
    cmd: python stage.py train_multi data/encode data/results
    deps: [stage.py, data/encode]
    params: [train_multi]
    outs: [data/results]
metrics: [data/results/metrics.json]
"""
PARAMS = "encode: {size: 4}\ntrain_multi:\n  idar:\n    weight: 0.5\n  seed: 0\n"
WEIGHTS = [0.1, 0.3, 1.0]
PATIENCE_S = 240
DROPPED = r".*(_low|_high)$|.*num_"
BOOKKEEPING = ("Experiment", "rev", "typ", "Created", "parent", "State", "Executor")


def run(folder, *command):
    environment = os.environ | {"DVC_NO_ANALYTICS": "true", "HOME": str(folder.parent), "COLUMNS": "200"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [sys.executable, "-m", *command] if command[0] == "dvc" else command
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    for name, text in (("stage.py", STAGE), ("dvc.yaml", PIPELINE), ("params.yaml", PARAMS)):
        (folder / name).write_text(text)
    run(folder, "git", "init", "-q")
    run(folder, "git", "config", "user.name", "n")
    run(folder, "git", "config", "user.email", "n@example.org")
    run(folder, "dvc", "init", "-q")
    (folder / ".dvc" / "config").write_text(
        f"[core]\n    remote = beside\n['remote \"beside\"']\n    url = {tmp_path}/store\n"
    )
    run(folder, "dvc", "repro", "-q")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "-qm", "start")
    return folder


def finished(folder):
    """Names of the finished experiments; none while a worker is writing a reference, which git takes for damage."""
    command = ["git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps/*/*/sweep-*"]
    listed = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True).stdout
    return sorted(listed.split())


def test_a_sweep_runs_side_by_side_and_its_best_run_is_applied_and_pushed(project):
    run(project, "dvc", "exp", "run", "-q", "--queue", "--name", "sweep", "-S", "train_multi.idar.weight=0.1,0.3,1.0")
    run(project, "dvc", "queue", "start", "-q", "--jobs", "2")
    names = ["sweep-1", "sweep-2", "sweep-3"]
    start = time.monotonic()
    while finished(project) != names and time.monotonic() < start + PATIENCE_S:
        time.sleep(0.5)
    assert finished(project) == names, run(project, "dvc", "queue", "status")
    assert "weight: 0.5" in (project / "params.yaml").read_text(), "the checkout is left alone"
    for name in names:
        log = run(project, "dvc", "queue", "logs", name)
        assert "Stage 'encode' didn't change, skipping" in log

    shown = run(project, "dvc", "exp", "show", "--csv", "--only-changed", "--drop", DROPPED)
    rows = [row for row in csv.DictReader(shown.splitlines()) if row["Experiment"].startswith("sweep")]
    columns = [column for column in rows[0] if column not in BOOKKEEPING]
    assert [column.rsplit(":")[-1] for column in columns] == ["face_sim", "train_multi.idar.weight"]
    assert sorted((float(row[columns[0]]), float(row[columns[1]])) for row in rows) == [(w / 2, w) for w in WEIGHTS]

    change = json.loads(run(project, "dvc", "exp", "diff", "--json", "sweep-1", "sweep-3"))
    assert change["metrics"]["data/results/metrics.json"]["face_sim"]["diff"] == pytest.approx(0.45)
    run(project, "dvc", "exp", "apply", "-q", "sweep-3")
    assert yaml.safe_load((project / "params.yaml").read_text())["train_multi"] == {"idar": {"weight": 1.0}, "seed": 0}
    assert json.loads((project / "data" / "results" / "metrics.json").read_text())["face_sim"] == 0.5

    run(project, "git", "init", "-q", "--bare", str(project.parent / "team.git"))
    run(project, "git", "remote", "add", "origin", str(project.parent / "team.git"))
    run(project, "dvc", "exp", "push", "-q", "origin", "sweep-3")
    assert run(project, "git", "ls-remote", "origin", "refs/exps/*").strip().endswith("/sweep-3")
    assert any((project.parent / "store").rglob("*"))


def test_documented_overrides_name_settings_that_exist():
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    keys = {key for page in pages for key in re.findall(r"-S '?([a-z_]+(?:\.[a-z_]+)+)=", page.read_text())}
    assert "train_multi.idar.weight" in keys
    for key in keys - {"section.key"}:
        found = settings
        for part in key.split("."):
            assert part in found, f"{key} is documented, but params.yaml does not have it"
            found = found[part]
