"""What verbs make of their arguments: where relative paths are seen from, and text that is none."""

import os
import shutil
import sys
from io import BytesIO, TextIOWrapper

import pytest
import yaml
from bench_fixtures import write_suite
from imports import ROOT
from PIL import Image
from processes import completed

from mcpipe.cli import settings
from mcpipe.cli.__main__ import main
from mcpipe.cli.doctor.checks import repository_rows
from mcpipe.cli.repository import check_repository
from mcpipe.cli.settings import located, read_content
from mcpipe.flux.adapters import AdapterSpec
from studies.ablation.__main__ import ABLATION
from studies.command import run_study

BAD = b"\xff".decode(errors="surrogateescape")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A current folder apart from that of params.yaml, with a file in each that the other lacks."""
    here, project = tmp_path / "here", tmp_path / "project"
    (here / "clips").mkdir(parents=True)
    (here / "clips" / "a.mp4").write_bytes(b"clip")
    (here / "face.png").write_bytes(b"none")
    project.mkdir()
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    content["models"] |= {name: f"named/{name}" for name in content["models"]}
    (project / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    monkeypatch.chdir(here)
    for module in ("curate", "generate", "score", "doctor.checks"):
        monkeypatch.setattr(f"mcpipe.cli.{module}.settings_file", lambda: project / "params.yaml")
    return tmp_path


def test_a_typed_path_is_seen_from_the_current_folder_and_a_named_one_from_its_file_in_every_verb(
    elsewhere, monkeypatch, capsys
):
    """Each verb is asked for a checkpoint that is no checkpoint; its message says where it looked."""
    monkeypatch.setenv("COLUMNS", "500")
    here, project = elsewhere / "here", elsewhere / "project"
    spec = AdapterSpec(rank=1, experts=None, image_size=32, reference_size=16)
    (here / "typed").mkdir()
    (here / "typed" / "adapter.json").write_text(spec.model_dump_json(), encoding="utf-8")
    write_suite(here)
    generate = ["generate", "--reference", "face.png", "--prompt", "p", "--out", "a.png", "--adapter"]
    score = ["score", "--suite", "mcpipe", "--images", "clips", "--name", "x", "--pairs", "pairs"]
    for words, model, reason in (
        (["curate", "clips", "--out", "out"], "pose", "no checkpoint {}; set models.pose"),
        ([*generate, "typed"], "faces", "no *.onnx in the face pack {}"),
        (score, "faces", "no *.onnx in the face pack {}"),
        (["doctor"], "pose", "no pose checkpoint {}"),
    ):
        for changes, place in (
            ([], project / "named" / model),
            (["-S", f"models.{model}=typed-too"], here / "typed-too"),
            (["-S", f"models.{model}=../project/named"], here / "../project/named"),
        ):
            assert main([*words, *changes]) == 1
            assert reason.format(place) in "".join(capsys.readouterr()), (words, changes)
    assert main([*generate, "../project/typed"]) == 1
    assert "no ../project/typed/adapter.json" in capsys.readouterr().err


def test_changes_that_are_paths_become_absolute_and_nothing_else_does(elsewhere):
    here, file = elsewhere / "here", elsewhere / "project" / "params.yaml"
    for change, section, key, value in (
        ("models.pose=a/b.pt", "models", "pose", str(here / "a/b.pt")),
        ("models.pose=../b.pt", "models", "pose", str(here / "../b.pt")),
        ("models.pose=/a/b.pt", "models", "pose", "/a/b.pt"),
        ("models.pose='with blank.pt'", "models", "pose", str(here / "with blank.pt")),
        ("models.pose=007", "models", "pose", str(here / "007")),
        ("models={pose: b.pt, clip: c}", "models", "clip", str(here / "c")),
        ("source.clips=clips", "source", "clips", str(here / "clips")),
        ("train_single.start=a.safetensors", "train_single", "start", str(here / "a.safetensors")),
        ("train_single.start=null", "train_single", "start", None),
        ("train_single.seed=3", "train_single", "seed", 3),
    ):
        assert read_content(file, None, [change])[section][key] == value, change
    content = read_content(file, None, ["models.pose=a.pt"])
    assert located(content, file.parent)["pose"] == here / "a.pt"
    assert located(content, file.parent)["clip"] == file.parent / "named/clip"
    for change in ("models.pose=", "models.pose=[a]"):
        with pytest.raises(ValueError, match=r"models\.pose should be a path"):
            located(read_content(file, None, [change]), file.parent)


def test_every_setting_that_is_a_path_is_known_as_one():
    """Those of the pipeline that hold a slash, and those that are ``null`` for no file, unlike numbers and lists."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    paths = {f"{s}.{k}" for s, keys in content.items() for k, v in keys.items() if isinstance(v, str) and "/" in v}
    paths |= {f"{s}.{k}" for s, keys in content.items() for k, v in keys.items() if v is None}
    paths -= {"train_rl.rank", "idar_scope.blocks"}
    assert {path for path in paths if path not in settings.PATHS and path.split(".")[0] not in settings.PATHS} == set()


def test_doctor_knows_a_typed_checkpoint_of_the_project_by_its_recorded_hash(capsys, monkeypatch):
    monkeypatch.chdir(ROOT / "zoo")
    monkeypatch.setenv("COLUMNS", "500")
    assert main(["doctor", "-S", "models.pose=pose/pose.pt", "-S", "source.clips=../data/world/clips"]) in (0, 1)
    rows = capsys.readouterr().out.splitlines()
    assert "hash as in dvc.lock" in next(row for row in rows if "models.pose" in row)
    assert str(ROOT) in next(row for row in rows if "source.clips" in row) or (ROOT / "data/world/clips").is_dir()


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "--reference", "a.png", "--out", "a.png", "--prompt", f"a man{BAD}"],
        ["score", "--suite", "mcpipe", "--images", "a", "--name", BAD],
        ["score", "--suite", "mcpipe", "--images", "a", "--name", "a", "--conf", BAD],
        ["doctor", "-S", f"models.pose={BAD}"],
        ["curate", "clips", "--out", "out", "-S", f"{BAD}=1"],
    ],
)
def test_text_that_is_not_utf_8_is_refused_in_one_line(words, capsys):
    assert main(words) == 1
    stderr = capsys.readouterr().err
    assert len(stderr.splitlines()) == 1
    option = next(word for word in reversed(words[:-1]) if word.startswith("-"))
    assert stderr.startswith(f"error: {option} ")
    assert "is not UTF-8; write it in UTF-8" in stderr


def test_files_may_have_names_that_are_not_utf_8(tmp_path, monkeypatch):
    """A terminal gets every byte that it cannot show as a number."""
    monkeypatch.setattr("mcpipe.cli.world.preview_sheet", lambda _: Image.new("RGB", (4, 4)))
    folder = tmp_path / BAD
    for words, status, said in (
        (["world", "--preview", f"{folder}/a.png"], 0, rf"{tmp_path}/\udcff/a.png: the puppet world"),
        (["table", str(folder)], 1, rf"error: no metrics.json below {tmp_path}/\udcff;"),
    ):
        streams = [TextIOWrapper(BytesIO(), encoding="utf-8", errors="strict") for _ in range(2)]
        for name, stream in zip(("stdout", "stderr"), streams, strict=True):
            monkeypatch.setattr(sys, name, stream)
        assert main(words) == status
        for stream in streams:
            stream.flush()
        outputs = [stream.buffer.getvalue().decode() for stream in streams]
        assert outputs[status].startswith(said)
        assert outputs[1 - status] == ""
    assert [file.name for file in folder.iterdir()] == ["a.png"]


def test_a_project_without_git_is_told_what_to_do(tmp_path, monkeypatch):
    """An export as a ZIP file is such a one."""
    with pytest.raises(FileNotFoundError, match="is no git repository.*`git init && git add --all && git commit"):
        check_repository(tmp_path)
    for name in ("Makefile", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    (finding,) = repository_rows(tmp_path)
    assert (finding.verdict, "is no git repository" in finding.message) == ("problem", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="is no git repository"):
        run_study(ABLATION, ROOT / "studies" / "ablation" / "plan.yaml", None, tmp_path / "out")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environment["GIT_CEILING_DIRECTORIES"] = str(tmp_path.parent)
    for target in ("repro", "test", "zoo", "ablation", "alignment", "walkthrough"):
        done = completed(["make", target], env=environment)
        assert done.returncode == 2, target
        assert done.stdout == ""
        assert done.stderr.splitlines()[0].endswith("git init && git add --all && git commit --message start"), target
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="git is not installed"):
        check_repository(ROOT)
