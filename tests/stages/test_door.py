"""What a person can get wrong ends in one line that says what and where, and leaves no half-written output."""

import logging
import os
import sys

import pytest
import yaml
from imports import ROOT
from processes import completed

from benchmarks.stage_times import table
from stages.__main__ import main

SETTINGS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def door(tmp_path, monkeypatch, capfd):
    """Runs a stage in an empty folder with settings of its own; returns what it says."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, settings=SETTINGS):
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        with monkeypatch.context() as process:
            process.setattr(logging.root, "handlers", [])  # as in a new process
            process.setattr(logging.root, "level", logging.WARNING)
            assert main(list(map(str, arguments))) == 1
        return only_line(capfd.readouterr().err)

    return run


def only_line(text):
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("error: ")
    return lines[0]


def test_a_process_says_nothing_else(tmp_path):
    """What libraries print while they are imported and stop at a broken file included."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    broken = tmp_path / "broken.pt"
    broken.write_text("version https://git-lfs.github.com/spec/v1", encoding="utf-8")
    (tmp_path / "frames").mkdir()
    command = [sys.executable, "-m", "stages", "subjects", "frames", broken, ROOT / "zoo" / "segmenter", "out"]
    done = completed(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{broken} is no usable ultralytics checkpoint" in only_line(done.stderr)


def test_a_process_ends_at_once_with_what_is_registered_and_written():
    lines = [
        "import atexit, gc, sys",
        "from mcpipe.steps.door import leave",
        "class Slow:",
        "    def __del__(self): print('taken apart')",
        "sys.modules['slow'] = Slow()",
        "atexit.register(print, 'registered')",
        "sys.stdout.write('written ')",
        "leave(3)",
    ]
    done = completed([sys.executable, "-c", "\n".join(lines)], env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout) == (3, "written registered\n"), done.stderr


def changed(section, **values):
    return SETTINGS | {section: SETTINGS[section] | values}


def test_a_stage_that_ends_well_leaves_what_it_took_and_the_profile_adds_up(tmp_path, monkeypatch, door):
    file = tmp_path / "profile.tsv"
    file.write_text("began\t1000.0\n", encoding="utf-8")
    monkeypatch.setenv("MCPIPE_PROFILE", str(file))
    door("frame")
    assert file.read_text(encoding="utf-8") == "began\t1000.0\n", "this one failed"
    assert table(file.read_text(encoding="utf-8"), 1003.0).startswith("no stage ran")
    monkeypatch.setattr("mcpipe.steps.door.Door.run_stage", lambda door, arguments: None)
    assert main(["frames", "clips", "data/frames"]) == 0
    name, out, wall, busy, peak = file.read_text(encoding="utf-8").splitlines()[1].split("\t")
    assert (name, out) == ("frames", "data/frames")
    assert min(float(wall), float(busy), float(peak)) > 0
    text = "began\t1000.0\nframes\tdata/frames\t4.0\t6.0\t300\ntrain_rl\tdata/models/train_rl\t10.0\t9.0\t900\n"
    lines = [line.split() for line in table(text, 1020.0).splitlines()]
    assert lines[1] == ["frames", "data/frames", "4.0", "20%", "1.50", "300"]
    assert lines[-2:] == [["DVC", "itself", "6.0", "30%"], ["together", "20.0"]]
    with pytest.raises(ValueError, match="five columns"):
        table("began\t1\nframes\t3\n", 2.0)


def test_unknown_stage(door):
    assert "NAME one of world, frames" in door("frame")


def test_wrong_number_of_paths(door):
    assert "takes the paths CLIPS FRAMES, got 1: data/clips" in door("frames", "data/clips")


def test_missing_clip_folder(door, tmp_path):
    assert "no folder of clips nowhere" in door("frames", "nowhere", "out")
    assert not (tmp_path / "out").exists()


def test_empty_clip_folder(door, tmp_path):
    (tmp_path / "clips").mkdir()
    assert "no clip in clips" in door("frames", "clips", "out")


def test_unknown_parameter(door):
    said = door("frames", "clips", "out", settings=changed("frames", min_sharpnes=3.0))
    assert "frames.min_sharpnes: Extra inputs are not permitted (got 3.0)" in said


def test_parameter_out_of_range(door):
    said = door("subjects", "a", "b", "c", "out", settings=changed("subjects", min_score=1.5))
    assert "subjects.min_score: Input should be less than or equal to 1 (got 1.5)" in said


def test_missing_section(door):
    settings = {name: values for name, values in SETTINGS.items() if name != "frames"}
    assert "there is no section 'frames'" in door("frames", "clips", "out", settings=settings)


def test_missing_and_broken_checkpoints(door, tmp_path):
    (tmp_path / "frames").mkdir()
    assert "no pose checkpoint nowhere.pt" in door("subjects", "frames", "nowhere.pt", ROOT / "zoo/segmenter", "out")
    broken = tmp_path / "broken.pt"
    broken.write_text("version https://git-lfs.github.com/spec/v1", encoding="utf-8")
    said = door("subjects", "frames", broken, ROOT / "zoo/segmenter", "out")
    assert f"{broken} is no usable ultralytics checkpoint" in said
    assert not (tmp_path / "out").exists()


def test_segmenter_folder_without_weights(door, tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "segmenter").mkdir()
    said = door("subjects", "frames", ROOT / "zoo/pose/pose.pt", "segmenter", "out")
    assert "segmenter folder segmenter should hold exactly one *.yaml, found 0" in said


def test_broken_face_packs(door, tmp_path):
    pack = tmp_path / "models" / "pack"
    pack.mkdir(parents=True)
    assert f"no *.onnx in the face pack {pack}" in door("identity", "a", "b", pack, "out")
    (pack / "detector.onnx").write_text("<!DOCTYPE html><html></html>", encoding="utf-8")
    assert f"{pack / 'detector.onnx'} is no ONNX model" in door("identity", "a", "b", pack, "out")


def test_missing_input(door):
    assert "no folder frames; has the stage that writes it run?" in door(
        "identity", "frames", "subjects", ROOT / SETTINGS["models"]["faces"], "out"
    )


@pytest.mark.real
def test_real_broken_files_are_refused(door, real, tmp_path):
    for file in sorted((real / "broken").iterdir()):
        pack = tmp_path / file.stem / "models" / "pack"
        pack.mkdir(parents=True)
        (pack / "model.onnx").write_bytes(file.read_bytes())
        assert "is no ONNX model" in door("identity", "a", "b", pack, "out")


def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
    import numpy as np

    from mcpipe.core.errors import one_line
    from mcpipe.core.records import Record
    from mcpipe.core.shards import whole_folder, write_shards

    record = Record("a", {}, {"picture": np.zeros((512, 512, 3), np.uint8)})

    def full(*_arguments, **_keywords):
        raise OSError(28, "No space left on device", "shard-00000.tar")

    monkeypatch.setattr("tarfile.TarFile.addfile", full)

    def write():
        with whole_folder(tmp_path / "out") as folder:
            write_shards([record], folder, 1)

    with pytest.raises(OSError, match="No space") as caught:
        write()
    assert list(tmp_path.iterdir()) == []
    assert one_line(caught.value, "frames") == "frames: shard-00000.tar: No space left on device"


def test_sums_are_taken_by_one_thread_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # so that it is put back afterwards
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert main([]) == 1
    assert os.environ["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert main([]) == 1
    assert os.environ["OMP_NUM_THREADS"] == "3"
