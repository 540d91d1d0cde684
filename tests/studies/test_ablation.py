"""The ablation's arms, its statistics, and its way through DVC's queue on a pipeline that takes no time."""

import itertools
import json
import os
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
import yaml
from imports import ROOT

from mcpipe.bench.intervals import Interval, IntervalParams
from mcpipe.bench.tables import METRICS
from mcpipe.core.params import check_params
from mcpipe.report.ablation import Ablation, Change
from studies.ablation.diagnosis import apart, fact
from studies.ablation.plan import preparation, read_plan, trials
from studies.ablation.repository import Queue, read_queue
from studies.ablation.runner import ATTEMPTS, StageCounts, Study
from studies.ablation.table import block_interval

PLAN = ROOT / "benchmarks" / "ablation" / "arms.yaml"
INTERVAL = IntervalParams(resamples=400, seed=0)


def params_of(experiment):
    """The project's params.yaml as an experiment changes it."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for change in experiment.changes:
        key, value = change.split("=", 1)
        *path, last = key.split(".")
        section = params
        for part in path:
            section = section[part]
        assert last in section, f"{experiment.name} sets {key}, which params.yaml does not have"
        section[last] = yaml.safe_load(value)
    return params


def test_every_arm_changes_settings_that_exist_and_are_allowed():
    multi = import_module("mcpipe.train.multi")
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    for experiment in trials(read_plan(PLAN)):
        changed = params_of(experiment)
        check_params(changed["train_multi"], multi.TrainMultiParams)
        assert changed["pairs"] == settings["pairs"], "arms answer the same prompts"


def test_arms_differ_by_what_their_names_say():
    parts = {}
    for experiment in trials(read_plan(PLAN)):
        change = dict(text.split("=") for text in experiment.changes)
        weight = float(change.get("train_multi.idar.weight", 0.3))
        parts[experiment.arm.name] = (weight > 0, "train_multi.experts" not in change, *experiment.targets)
    multi_target, rl_target = "evaluate@train_multi", "evaluate@train_rl"
    assert parts == {
        "baseline": (False, False, multi_target),
        "control": (False, True, multi_target),
        "idar": (True, False, multi_target),
        "moe": (True, True, multi_target),
        "ippo": (True, True, rl_target),
    }


def test_interval_covers_trainings_and_prompts():
    random = np.random.default_rng(0)
    prompts = random.normal(size=(1, 40))
    alike = np.repeat(prompts, 3, axis=0)
    unlike = alike + np.array([[-1.0], [0.0], [1.0]])
    narrow, wide = block_interval(alike, INTERVAL), block_interval(unlike, INTERVAL)
    assert narrow.value == pytest.approx(wide.value)
    assert narrow.high - narrow.low == pytest.approx(4 * prompts.std() / np.sqrt(40), rel=0.15)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    with pytest.raises(ValueError, match="not a number"):
        block_interval(np.array([[1.0, np.nan]]), INTERVAL)


@pytest.mark.parametrize(
    ("interval", "published", "verdict", "reason"),
    [
        (Interval(0.2, 0.1, 0.3), 0.01, "comes out", ""),
        (Interval(-0.2, -0.3, -0.1), 0.01, "reversed", ""),
        (Interval(0.1, -0.1, 0.3), 0.01, "undecided", "finer than what can be told apart here, 0.200"),
        (Interval(0.1, -0.1, 0.3), 0.35, "undecided", "ruled out"),
        (Interval(0.1, -0.1, 0.3), 0.25, "undecided", "are possible"),
        (Interval(0.2, 0.1, 0.3), None, "no published step", ""),
    ],
)
def test_an_ordering_comes_out_only_beyond_doubt_and_says_why_not(interval, published, verdict, reason):
    change = Change("a", "b", "face_sim", interval, published)
    assert change.verdict == verdict
    assert reason in change.reason
    assert bool(reason) == bool(change.reason)


def test_any_setting_holds_for_every_arm_and_for_what_is_run_before_them():
    plan = read_plan(PLAN)
    wide = plan.model_copy(update={"settings": {"world.good_clips": 200, "pairs.attributes": ["skin", "glasses"]}})
    first = preparation(wide)
    assert first.changes == ["world.good_clips=200", "pairs.attributes=[skin,glasses]"]
    assert set(plan.shared) <= set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    for trial in trials(wide):
        assert set(first.changes) < set(trial.changes)
        assert trial.name != first.name


def test_figures_are_found_by_their_path_and_say_when_they_are_not_there():
    facts = {"held_out": {"after": {"0.0": {"inside": 0.1}, "0.5": {"inside": 0.3}, "1.0": {}}}, "text": "x"}
    assert fact(facts, ["held_out", "after", "*", "inside"]) == pytest.approx(0.2)
    assert fact(facts, ["held_out", "before", "*", "inside"]) is None
    assert fact(facts, ["text", "inside"]) is None
    rows = {"a": {"same": [0.6, 0.4], "cross": [0.1]}, "b": {"same": [], "cross": [0.3]}}
    assert apart(rows) == pytest.approx(0.3)
    assert apart({"a": {"same": [], "cross": []}}) is None


def test_dvc_is_read_rightly():
    queue = read_queue(
        "Task     Name    Created    Status\n4b459d2  a-s0    09:03 AM   Failed\n4cca581  a-s1    09:04 AM   Success\n"
        "929622c  b-s1    Nov 20, 2026   Running\n929622d  a-s0    09:05 AM   Queued\n\n"
        "Worker status: 1 active, 0 idle\n"
    )
    assert queue.tasks == {"a-s0": "Queued", "a-s1": "Success", "b-s1": "Running"}
    assert queue.has_workers
    assert not read_queue("No experiment tasks in the queue.\n\nWorker status: 0 active, 0 idle\n").has_workers
    counts = StageCounts()
    counts.add(
        "Running stage 'evaluate@train_rl':\n> python\nStage 'samples' didn't change, skipping\n"
        "Stage 'train_single' is cached - skipping run, checking out outputs\nRunning stage 'x' of a picture\n"
    )
    assert counts.ran == {"evaluate": 1, "x": 1}
    assert counts.restored == {"samples": 1, "train_single": 1}


class FakeRepository:
    """A queue whose single worker ends a task per look; ``fates`` says how each attempt of an experiment ends."""

    def __init__(self, **fates):
        self.fates = {name.replace("_", "-"): list(ends) for name, ends in fates.items()}
        self.tasks, self.results, self.calls, self.workers = {}, {}, [], False
        self.commits = itertools.repeat("a" * 40)
        self.starting, self.closing_books, self.forgotten = set(), set(), set()

    def commit(self):
        return next(self.commits)

    def queue(self):
        for name, status in self.tasks.items():
            if self.workers and status == "Queued":
                end = self.fates.get(name, ["Success"]).pop(0)
                self.tasks[name] = end
                if end == "Success":
                    self.results[name] = f"commit of {name}"
                if end == "Running":
                    self.workers = False
                break
        shown = {name: status for name, status in self.tasks.items() if name not in self.starting}
        self.starting.clear()
        return Queue(shown, self.workers)

    def finished(self):
        return dict(self.results)

    def enqueue(self, experiment):
        self.calls.append(experiment.name)
        self.tasks[experiment.name] = "Queued"

    def params(self, commit):
        name = commit.removeprefix("commit of ")
        return params_of(next(one for one in trials(read_plan(PLAN)) if one.name == name))

    def forget(self, name):
        del self.tasks[name]

    def give_up(self, name):
        self.tasks[name] = "Failed"

    def log(self, name):
        if name in self.closing_books or name in self.forgotten:
            self.closing_books.discard(name)
            raise RuntimeError("`dvc queue logs` failed")
        return "Running stage 'train_multi':\n"

    def start_workers(self):
        self.workers = True


def run_study(repository):
    return Study(repository, trials(read_plan(PLAN)), patience_s=0).run(lambda state: None, poll_s=0)


def test_only_what_has_no_result_is_queued_and_a_stumble_is_forgiven():
    repository = FakeRepository(idar_s1=["Failed", "Running", "Success"])
    repository.results = {"baseline-s0": "commit of baseline-s0", "stranger": "other"}
    repository.tasks = {"moe-s2": "Queued"}
    commits = run_study(repository)
    names = [experiment.name for experiment in trials(read_plan(PLAN))]
    assert list(commits) == names
    queued = [name for name in names if name not in ("baseline-s0", "moe-s2")]
    assert repository.calls == [*queued, "idar-s1", "idar-s1"]
    repository.calls.clear()
    assert run_study(repository) == commits
    assert not repository.calls


def test_logs_that_cannot_be_read_yet_are_read_later_and_lost_ones_named(caplog):
    repository, counts = FakeRepository(), StageCounts()
    study = Study(repository, trials(read_plan(PLAN)))
    repository.closing_books = {"idar-s1"}
    study.count_stages(counts, poll_s=0)
    assert counts.ran == {"train_multi": 15}
    assert not caplog.messages
    repository.forgotten = {"moe-s0", "moe-s2"}
    study.count_stages(counts, poll_s=0)
    assert counts.ran == {"train_multi": 15 + 13}
    assert caplog.messages == ["DVC has no log of moe-s0, moe-s2; what they computed is not counted"]


def test_nothing_is_given_to_workers_that_are_about_to_leave():
    repository, waited = FakeRepository(), []
    repository.workers = True

    def look():
        waited.append(len(repository.calls))
        repository.workers = repository.workers and len(waited) < 4
        return Queue(dict(repository.tasks), repository.workers)

    whole, repository.queue = repository.queue, look

    def enqueue(experiment):
        repository.queue = whole
        FakeRepository.enqueue(repository, experiment)

    repository.enqueue = enqueue
    Study(repository, trials(read_plan(PLAN))).run(lambda state: None, poll_s=0)
    assert waited == [0, 0, 0, 0]


def test_a_task_on_no_list_for_a_moment_is_not_queued_twice():
    repository = FakeRepository()
    repository.tasks, repository.workers = {"moe-s1": "Queued", "moe-s2": "Queued"}, True
    repository.starting = {"moe-s2"}
    commits = run_study(repository)
    assert sorted([*repository.calls, "moe-s1", "moe-s2"]) == sorted(commits)


def test_a_task_that_starts_right_after_it_was_queued_is_not_queued_twice():
    repository = FakeRepository()
    start = repository.start_workers
    repository.start_workers = lambda: (repository.starting.update(repository.calls[-1:]), start())
    commits = run_study(repository)
    assert sorted(repository.calls) == sorted(commits)


def test_what_fails_again_and_again_ends_the_study_by_name():
    repository = FakeRepository(ippo_s0=["Failed"] * ATTEMPTS)
    with pytest.raises(RuntimeError, match=f"ippo-s0 failed {ATTEMPTS} times; see `dvc queue logs ippo-s0`"):
        run_study(repository)


def test_a_commit_made_meanwhile_is_told_and_nothing_runs_twice():
    repository = FakeRepository()
    repository.commits = iter(["a" * 40] * 3 + ["b" * 40])
    with pytest.raises(RuntimeError, match="from aaaaaaa to bbbbbbb .*; `git checkout aaaaaaa` and run"):
        run_study(repository)
    assert len(repository.calls) == len(set(repository.calls))


def test_a_result_of_another_plan_is_not_taken_for_this_one():
    repository = FakeRepository()
    repository.results = {"moe-s1": "commit of control-s1"}
    with pytest.raises(ValueError, match=r"moe-s1 was run with train_multi.idar.weight 0.0, not 0.03; `dvc exp remove"):
        run_study(repository)


STAND_IN = """
import json, os, pathlib, sys
import yaml
name, out = sys.argv[1:3]
settings = yaml.safe_load(open("params.yaml"))
with open(os.environ["RAN_LOG"], "a") as log:
    log.write(name + "\\n")
folder = pathlib.Path(out)
folder.mkdir(parents=True)
if name == "data":
    (folder / "clips").write_text(str(settings["world"]))
elif name == "single":
    (folder / "adapter").write_text(str(settings["train_single"]))
elif name == "train":
    share = settings["train_multi"]["idar"]["weight"] if settings["train_multi"]["idar"] else 0
    (folder / "report.json").write_text(json.dumps({"facts": {"inside": share}}))
else:
    import pyarrow as pa, pyarrow.parquet as pq
    value = settings["train_single"]["seed"] * 0.01 + (settings["train_multi"]["idar"] or {"weight": 0})["weight"]
    rows = [{"key": key, "METRIC": value + i} for i, key in enumerate("ab")]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
"""
PIPELINE = {
    "stages": {
        "encode": {
            "cmd": "python stage.py data data/encode",
            "deps": ["stage.py"],
            "params": ["world"],
            "outs": ["data/encode"],
        },
        "train_single": {
            "cmd": "python stage.py single data/models/train_single",
            "deps": ["stage.py", "data/encode"],
            "params": ["train_single"],
            "outs": ["data/models/train_single"],
        },
        "train_multi": {
            "cmd": "python stage.py train data/models/train_multi",
            "deps": ["stage.py", "data/models/train_single"],
            "params": ["train_multi"],
            "outs": ["data/models/train_multi"],
        },
        "evaluate": {
            "matrix": {"arm": ["train_multi"]},
            "cmd": "python stage.py multi data/results/${item.arm}",
            "deps": ["stage.py", "data/models/train_single", "data/models/train_multi"],
            "params": ["train_multi"],
            "outs": ["data/results/${item.arm}"],
        },
    }
}
PARAMS = "world: {good_clips: 3}\ntrain_single: {seed: 0}\ntrain_multi: {idar: {weight: 0.5}}\n"
STUDY = """
seeds: [1]
seeded: {train_single.seed: 1}
jobs: 1
settings: {world.good_clips: 5}
shared: [encode]
diagnosis: [{title: attention inside, stage: train_multi, fact: inside}]
arms:
  - {name: baseline, title: none, judged: train_multi, settings: {train_multi.idar: null}, published: UNO (baseline)}
  - {name: idar, title: some, judged: train_multi, settings: {train_multi.idar.weight: 1.0}, published: + IDAR}
comparisons: [[baseline, idar]]
interval: {resamples: 100, seed: 0}
"""


@pytest.fixture
def study(tmp_path):
    """A repository with a pipeline of quick stages."""
    (tmp_path / "stage.py").write_text(STAND_IN.replace("METRIC", METRICS[0]))
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "arms.yaml").write_text(STUDY)
    (tmp_path / ".gitignore").write_text("/*.log\n")
    for command in ("git init -q", "git config user.name n", "git config user.email n@example.org"):
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    subprocess.run(["git", "commit", "-qm", "start"], cwd=tmp_path, check=True)
    return tmp_path


def ablation(folder):
    environment = os.environ | {"RAN_LOG": str(folder / "ran.log"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "studies.ablation", "--plan", "arms.yaml", "--out", "out", "--poll", "1"]
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)


def test_arms_share_what_they_have_in_common_and_a_finished_study_computes_nothing(study):
    done = ablation(study)
    assert done.returncode == 0, done.stderr
    log = study / "ran.log"
    assert sorted(log.read_text().split()) == ["data", "multi", "multi", "single", "train", "train"]
    outcome = json.loads((study / "out" / "ablation.json").read_text())
    told = Ablation.model_validate(outcome)
    assert {arm: inside.value for arm, inside in told.diagnosis["attention inside"].items()} == {
        "baseline": 0,
        "idar": 1,
    }
    assert told.changes[0].change.value == pytest.approx(1.0)
    assert outcome["means"]["idar"][METRICS[0]]["value"] == pytest.approx(1.51)
    ran, restored = outcome["stages"]["ran"], outcome["stages"]["restored"]
    assert ran == {"encode": 1, "train_single": 1, "train_multi": 2, "evaluate": 2}
    assert restored == {"encode": 1, "train_single": 1}
    files = {"ablation.md", "ablation.json", "ablation.png", "scores.csv"}
    assert {file.name for file in (study / "out").iterdir()} == files
    log.unlink()
    again = ablation(study)
    assert again.stdout == done.stdout
    assert not log.exists()
    (study / "params.yaml").write_text(PARAMS.replace("good_clips: 3", "good_clips: 4"))
    assert "commit or stash first" in ablation(study).stderr
