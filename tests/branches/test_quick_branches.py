"""`make branches` runs every branch with its quick settings in a clone, and fails if one of them fails."""

import sys

import pytest
import yaml
from imports import ROOT
from processes import output

from benchmarks import branches
from benchmarks.branches import QUICK, SETTINGS, absent, chosen_branches, main, quicken
from mcpipe.steps.door import branch_settings

QUICK_BRANCHES = sorted(file.parent.name for file in ROOT.glob(f"*/{QUICK}"))
MAKEFILE = """
.PHONY: good bad
.venv/.ready:
\tfalse
good bad: .venv/.ready
\t@cat $@/params.yaml && test $@ = good
"""


@pytest.mark.parametrize("branch", QUICK_BRANCHES)
def test_quick_settings_change_values_that_the_branch_has(branch):
    settings = branch_settings(ROOT, ROOT / branch)
    quick = yaml.safe_load((ROOT / branch / QUICK).read_text(encoding="utf-8"))
    assert list(absent(settings, quick)) == []
    assert quick != {}
    assert f"\n{branch}: " in (ROOT / "Makefile").read_text(encoding="utf-8"), "what runs is the Makefile's target"


def test_objects_are_among_the_branches():
    assert "objects" in QUICK_BRANCHES
    assert chosen_branches(ROOT, []) == QUICK_BRANCHES
    with pytest.raises(ValueError, match=r"no subjects/quick.yaml; there are branches .*objects"):
        chosen_branches(ROOT, ["subjects"])


def test_a_project_without_branches_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"no folder in .* has a quick.yaml"):
        chosen_branches(tmp_path, [])


@pytest.fixture
def branch(tmp_path):
    folder = tmp_path / "flowers"
    folder.mkdir()
    (tmp_path / SETTINGS).write_text("sample: {steps: 20}\n", encoding="utf-8")
    (folder / SETTINGS).write_text("rows:\n  # rows\n  num: 100\n  seed: 1\ntrain: {steps: 50}\n", encoding="utf-8")
    return folder


def test_quick_settings_replace_values_and_leave_the_others(branch):
    (branch / QUICK).write_text("rows: {num: 3}\n", encoding="utf-8")
    quicken(branch)
    settings = yaml.safe_load((branch / SETTINGS).read_text(encoding="utf-8"))
    assert settings == {"rows": {"num": 3, "seed": 1}, "train": {"steps": 50}}


def test_quick_settings_that_nothing_would_read_are_refused(branch):
    (branch / QUICK).write_text("rows: {number: 3}\nsample: {steps: 2, seed: 1}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"quick.yaml states rows.number, sample.seed, which neither params.yaml"):
        quicken(branch)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with two branches, one of which fails; what stands in no commit stays out."""
    root = tmp_path / "project"
    for name in ("good", "bad"):
        (root / name).mkdir(parents=True)
        (root / SETTINGS).write_text("{}\n", encoding="utf-8")
        (root / name / SETTINGS).write_text("steps: 50\n", encoding="utf-8")
        (root / name / QUICK).write_text("steps: 2\n", encoding="utf-8")
    (root / "Makefile").write_text(MAKEFILE, encoding="utf-8")
    git = ["git", "-c", "user.name=tests", "-c", "user.email=tests@example.org"]
    for command in (
        [*git, "init", "--quiet"],
        [sys.executable, "-m", "dvc", "init", "--quiet"],
        [*git, "add", "--all"],
        [*git, "commit", "--quiet", "--message", "start"],
    ):
        output(command, cwd=root)
    (root / "good" / SETTINGS).write_text("steps: 70\n", encoding="utf-8")
    monkeypatch.setattr(branches, "ROOT", root)
    return root


def test_branches_run_in_a_clone_with_the_caches_of_this_checkout(project, capfd):
    assert main([]) == 1
    out = capfd.readouterr().out
    assert "steps: 2" in out
    assert [line.split()[0::3] for line in out.splitlines()[-2:]] == [["bad", "failed"], ["good", "ok"]]
    clone = project / ".mcpipe" / "branches"
    assert str(project / ".dvc" / "cache") in (clone / ".dvc" / "config.local").read_text(encoding="utf-8")
    assert (project / "good" / SETTINGS).read_text(encoding="utf-8") == "steps: 70\n", "this checkout stays as it is"
    (clone / "left").touch()
    assert main(["good"]) == 0
    assert not (clone / "left").exists(), "the clone is a new one"


def test_what_an_outer_make_was_given_stays_out(project, capfd, monkeypatch):
    (project / "Makefile").write_text("good:\n\t@test -z '$(ONLY)'\n", encoding="utf-8")
    output(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qam", "make"], cwd=project)
    monkeypatch.setenv("MAKEFLAGS", " -- ONLY=good")
    monkeypatch.setenv("ONLY", "good")
    assert main(["good"]) == 0, capfd.readouterr()


def test_an_unknown_branch_is_one_line(project, capsys):
    assert main(["better"]) == 1
    assert capsys.readouterr().err == "error: no better/quick.yaml; there are branches bad, good\n"
