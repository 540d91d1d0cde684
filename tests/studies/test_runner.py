"""The runner on a real DVC project of quick stages: killed, failing, resumed, extended."""

import json
import logging
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from processes import PATIENCE_S, exit_code, forked, output

from mcpipe.bench.tables import METRICS
from mcpipe.execution.store import progress_of
from mcpipe.report.ablation import Ablation
from studies.ablation.__main__ import ABLATION
from studies.command import main
from studies.repository import Repository

STAGE = """
import json, os, pathlib, sys, time, yaml
name, out = sys.argv[1:]
settings, test = yaml.safe_load(open("params.yaml")), pathlib.Path(os.environ["STUDY_TEST"])
seed, idar = settings["train_multi"]["seed"], settings["train_multi"]["idar"]
weight = idar["weight"] if idar else 0
label = name if name == "encode" else f"{name}-{weight}-{seed}"
with open(test / "ran.log", "a") as log:
    log.write(label + "\\n")
(test / "progress").write_text(os.environ["MCPIPE_PROGRESS"])
while (test / "hold").exists() and name == "train":
    time.sleep(0.05)
if (test / "fail").exists() and label == "train-1.0-1":
    raise SystemExit("the stage was told to fail")
folder = pathlib.Path(out)
folder.mkdir(parents=True)
(folder / "report.json").write_text(json.dumps({"stage": name, "facts": {"inside": weight}}))
if name == "score":
    import pyarrow as pa, pyarrow.parquet as pq
    rows = [{"key": key, "METRIC": weight + 0.01 * seed + i} for i, key in enumerate("ab")]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
"""
PIPELINE = """
stages:
  encode: {cmd: python stage.py encode data/encode, deps: [stage.py], params: [world], outs: [data/encode]}
  train_multi:
    cmd: python stage.py train data/models/train_multi
    deps: [stage.py, data/encode]
    params: [train_multi]
    outs: [data/models/train_multi]
  evaluate:
    matrix: {arm: [train_multi]}
    cmd: python stage.py score data/results/${item.arm}
    deps: [stage.py, "data/models/${item.arm}"]
    outs: ["data/results/${item.arm}"]
"""
PARAMS = "world: {good_clips: 3}\ntrain_multi: {seed: 0, idar: {weight: 0.5}}\n"
PLAN = """
name: ablation
seeds: [1]
seeded: {train_multi.seed: 1}
drawings: 1
drawn: {}
settings: {world.good_clips: 5}
diagnosis: [{title: attention inside, stage: train_multi, fact: inside}]
arms:
  - {name: baseline, title: none, evaluated: train_multi, settings: {train_multi.idar: null}}
  - {name: idar, title: some, evaluated: train_multi, settings: {train_multi.idar.weight: 1.0}}
controls: []
published: {baseline: UNO (baseline), idar: + IDAR}
comparisons: [[baseline, idar]]
num_shown: 0
oracles: []
sampled_unit: prompt
interval: {resamples: 100, seed: 0}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with a pipeline whose trainings wait while ``hold`` exists and fail while ``fail`` does."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "stage.py").write_text(STAGE.replace("METRIC", METRICS[0]), encoding="utf-8")
    (folder / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (folder / "params.yaml").write_text(PARAMS, encoding="utf-8")
    (folder / "plan.yaml").write_text(PLAN, encoding="utf-8")
    (folder / ".gitignore").write_text("/.mcpipe/\n", encoding="utf-8")
    commands = ["git init -q", "git config user.name n", "git config user.email n@example.org"]
    commands += [f"{sys.executable} -m dvc init -q", "git add .", "git commit -qm start"]
    for command in commands:
        output(command.split(), cwd=folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("STUDY_TEST", str(tmp_path))
    disposition = signal.getsignal(signal.SIGTERM)
    lines = logging.FileHandler(tmp_path / "study.log", encoding="utf-8")
    logger = logging.getLogger("studies")
    logger.addHandler(lines)
    yield folder
    logger.removeHandler(lines)
    signal.signal(signal.SIGTERM, disposition)


def study(*arguments):
    return main(ABLATION, Path(), ["--plan", "plan.yaml", "--out", "out", *arguments])


def ran(project):
    log = project.parent / "ran.log"
    names = text_of(log).split()
    log.unlink(missing_ok=True)
    return names


def said(project):
    """The runner's lines since the last look."""
    log = project.parent / "study.log"
    lines = log.read_text(encoding="utf-8").splitlines()
    log.write_text("", encoding="utf-8")
    return lines


def started(*arguments):
    """The study in a process of its own."""
    process = forked(lambda: os._exit(study(*arguments)), daemon=True)
    process.start()
    return process


def wait_for(stage, project, process):
    wait_until(lambda: stage in text_of(project.parent / "ran.log").split(), process)


def wait_for_line(beginning, project, process):
    """Until the runner has said something."""
    wait_until(lambda: f"\n{beginning}" in text_of(project.parent / "study.log"), process)


def text_of(log):
    return log.read_text(encoding="utf-8") if log.exists() else ""


def wait_until(condition, process):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        assert process.is_alive()
        time.sleep(0.05)


def test_a_study_survives_kills_and_failures_and_takes_more_seeds(project, capfd, monkeypatch):
    hold, fail = project.parent / "hold", project.parent / "fail"
    hold.touch()
    killed = started()
    wait_for("train-0-1", project, killed)
    killed.kill()
    fail.touch()
    second = started()
    wait_for_line("another study", project, second)
    hold.unlink()  # what the killed study has left goes on to its end, and only then the second one begins
    assert exit_code(second) == 1
    assert ran(project) == ["encode", "train-0-1", "score-0-1", "train-1.0-1"]
    assert [line.split(";")[0] for line in said(project)] == [
        "0 of 2 experiments are finished",
        "another study, or an experiment that an interrupted one has left, runs here",
        "1 of 2 experiments are finished",
        "2 of 2: ablation-idar-s1 FAILED",
    ]
    log = ".mcpipe/studies/ablation-idar-s1.log"
    assert capfd.readouterr().err == f"error: 1 of 2 experiments failed: ablation-idar-s1 (see {log})\n"
    assert "the stage was told to fail" in (project / log).read_text(encoding="utf-8")

    progress = project / ".mcpipe" / "studies" / "progress"
    assert (project.parent / "progress").read_text(encoding="utf-8") == str(progress), (
        "checkpoints outlive the copy of the checkout"
    )
    monkeypatch.setenv("MCPIPE_PROGRESS", str(progress))
    assert progress_of(Path("data/models/train_rl")) == progress / "models" / "train_rl"
    monkeypatch.delenv("MCPIPE_PROGRESS")
    fail.unlink()
    assert study() == 0
    assert ran(project) == ["train-1.0-1", "score-1.0-1"]
    assert re.fullmatch(r"2 of 2: ablation-idar-s1 finished; \S+ an hour, 0 s left", said(project)[-1])
    check_outcome(project / "out")
    page = capfd.readouterr().out

    hold.touch()
    extended = started("--seeds", "1", "2")
    wait_for("train-0-2", project, extended)
    copies = project / ".dvc" / "tmp" / "exps" / "standalone"
    assert len(list(copies.glob("tmp*"))) == 1
    extended.terminate()  # and not SIGINT, which tests that run in the background inherit as ignored
    assert exit_code(extended) == 130
    assert ran(project) == ["train-0-2"], "nothing of the first seed is run again"
    hold.unlink()
    assert study() == 0
    assert capfd.readouterr().out == page
    assert ran(project) == []
    check_refusals(project, capfd)
    assert study("--seeds", "2") == 1
    assert not list(copies.glob("tmp*")), "the copy of the killed experiment is deleted"


def check_outcome(folder):
    """The analysis of both experiments."""
    outcome = json.loads((folder / "ablation.json").read_text(encoding="utf-8"))
    assert outcome["means"]["idar"][METRICS[0]]["value"] == pytest.approx(1.51)
    recorded = Ablation.model_validate(outcome)
    inside = {arm: values.value for arm, values in recorded.diagnosis["attention inside"].items()}
    assert inside == {"baseline": 0, "idar": 1}
    assert recorded.changes[0].change.value == pytest.approx(1.0)
    files = {file.name for file in folder.iterdir()}
    assert files == {"ablation.md", "ablation.json", "ablation.png", "scores.csv"}


def check_refusals(project, capfd):
    """A plan other than that of the results, and a checkout other than its commit, run nothing."""
    assert Repository(project).uncommitted([]) == []
    (project / "plan.yaml").write_text(PLAN.replace("weight: 1.0", "weight: 0.9"), encoding="utf-8")
    assert study() == 1
    error = capfd.readouterr().err
    assert "ablation-idar-s1 was run with train_multi.idar.weight 1.0, not 0.9; `dvc exp remove" in error
    (project / "params.yaml").write_text(PARAMS.replace("good_clips: 3", "good_clips: 4"), encoding="utf-8")
    assert study() == 1
    assert "commit or stash first" in capfd.readouterr().err
    assert ran(project) == []
