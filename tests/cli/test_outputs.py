"""What verbs write replaces nothing that they read, and is refused before the work where it cannot be written."""

import os
from pathlib import Path

import pytest
from imports import ROOT
from PIL import Image

from mcpipe.cli.__main__ import main
from mcpipe.cli.outputs import Output, check_outputs, write_pictures

LONG = "x" * 250
DEEP = "/".join(["y" * 200] * 21)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with one input of every kind, and every kind of path that leads to it."""
    (tmp_path / "refs" / "sub").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "refs" / "a.png")
    (tmp_path / "link.png").symlink_to("refs/a.png")
    (tmp_path / "linked").symlink_to("refs")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop.png").symlink_to("loop.png")
    os.link(tmp_path / "refs" / "a.png", tmp_path / "hard.png")
    (tmp_path / "out" / "pictures").mkdir(parents=True)
    (tmp_path / ".out.unfinished").mkdir()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("text", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "locked").mkdir(mode=0o500)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tree(folder):
    return sorted((str(path), path.is_dir() or path.lstat().st_mtime_ns) for path in folder.rglob("*"))


LOCKED = "/proc" if os.getuid() == 0 else "locked"
"""Nothing can be written there, not even by root."""

READ_FILE, READ_FOLDER = {"--reference": Path("refs/a.png")}, {"--images": Path("refs")}


def test_an_output_that_would_cost_an_input_is_refused_however_it_is_named(place):
    before = tree(place)
    same, inside, over = "is the same as", "lies in", "would be replaced, and with it"
    for read, kind, names, reason in (
        (READ_FILE, "picture", ["refs/a.png", "refs/sub/../a.png", "link.png", "hard.png", "linked/a.png"], same),
        (READ_FOLDER, "picture", ["refs/b.png", "linked/b.png", "refs/new/b.png", "refs/sub/../b.png"], inside),
        (READ_FOLDER, "folder", ["refs", "refs/sub/..", str(place / "refs")], same),
        (READ_FOLDER, "folder", ["refs/new", "linked/sub"], inside),
        (READ_FOLDER, "store", ["linked"], same),
        ({"--images": Path("out/pictures")}, "folder", ["out", "refs/../out"], over),
        ({"--images": Path(".out.unfinished")}, "folder", ["out"], same),
        ({"--images": Path(".out.unfinished/new")}, "folder", ["out"], over),
    ):
        for name in names:
            with pytest.raises(ValueError, match=f"--out {name} {reason} {next(iter(read))}.*, which is read"):
                check_outputs([Output("--out", Path(name), kind)], read)
    assert tree(place) == before


def test_a_place_that_cannot_be_written_is_named_before_anything_is_done(place):
    before = tree(place)
    for kind, name, reason in (
        ("picture", "folder.png", "is a folder"),
        ("picture", "pipe.png", "is no regular file"),
        ("picture", "file/a.png", "Not a directory"),
        ("picture", "file/new/a.png", "Not a directory"),
        ("picture", "dangling/a.png", "No such file"),
        ("picture", "loop.png", "Too many levels"),
        ("picture", f"{LONG}{LONG}.png", "File name too long"),
        ("picture", f"{DEEP}/a.png", "File name too long"),
        ("picture", f"{LOCKED}/new/a.png", "denied|No such file"),
        ("folder", "file", "is no folder"),
        ("folder", "file/new", "Not a directory"),
        ("folder", "linked", "is a link"),
        ("folder", LONG, "File name too long"),
        ("folder", DEEP[:4085], "File name too long"),
        ("folder", f"{LOCKED}/new", "denied|No such file"),
        ("store", "file", "is no folder"),
    ):
        with pytest.raises((ValueError, OSError), match=reason):
            check_outputs([Output("--out", Path(name), kind, "shard-00000.tar")], {})
    with pytest.raises(ValueError, match="get in each other's way"):
        check_outputs(
            [Output("--out", Path("m.png"), "picture"), Output("--attention", Path("m.png/1.png"), "picture")], {}
        )
    assert tree(place) == before


def test_what_can_be_written_is_not_refused(place):
    long = f"{'z' * 251}.png"
    outputs = [Output("--out", Path(name), "picture") for name in ("b.png", "new/b.png", "refs/b.png", long)]
    check_outputs(outputs, READ_FILE)
    folders = [Output("--out", Path("out"), "folder"), Output("--out", Path("linked"), "store")]
    check_outputs(folders, {"--images": Path("folder.png"), "gone": Path("nowhere/at/all")})
    check_outputs([Output("--out", Path("refs/new"), "folder", may_lie_in=frozenset({"--images"}))], READ_FOLDER)
    write_pictures({Path(long): Image.new("RGB", (4, 4))})
    assert Image.open(long).size == (4, 4)


def test_every_verb_looks_at_its_places_before_the_work(place, capsys):
    """Nothing that the work would need is there, or what is there would be found wanting."""
    people = ["--reference", "refs/a.png", "--prompt", "a person", "--adapter", "no-adapter"]
    scored = ["score", "--suite", "mcpipe", "--images", "out/pictures", "--name"]
    handout = ["score", "--suite", "mcpipe", "--handout"]
    (place / "clips").mkdir()
    (place / "clips" / "a.mp4").write_bytes(b"clip")
    (place / "curated").mkdir()
    (place / "curated" / "frames").symlink_to("../clips")
    before = tree(place)
    for words, reason in (
        (["world", "--preview", "file/a.png"], "Not a directory"),
        (["world", "--preview", f"{LONG}{LONG}.png"], "File name too long"),
        (["picture", "out/images/a.png", "--data", "out"], "out/images/a.png lies in images of --data out/images"),
        (["picture", f"{LOCKED}/a.png", "--data", "out"], "a.png: "),
        (["generate", *people, "--out", "hard.png"], "hard.png is the same as reference 1 refs/a.png"),
        (["generate", *people, "--out", "no-adapter/a.png"], "lies in --adapter no-adapter"),
        (["generate", *people, "--out", str(ROOT / "zoo/generator/a.png")], "lies in models.generator"),
        (["generate", *people, "--out", "a.png", "--attention", "a.png"], "get in each other's way"),
        ([*scored, "pictures", "--out", "out"], "out/pictures is the same as --images out/pictures"),
        ([*scored, "x", "--out", "out/pictures"], "out/pictures/x lies in --images out/pictures"),
        ([*scored, LONG, "--out", "new"], "File name too long"),
        ([*scored, "x", "--out", "file"], "file/x: Not a directory"),
        ([*handout, "refs/new", "--pairs", "linked"], "refs/new lies in --pairs linked"),
        ([*handout, f"{LOCKED}/new"], "new: "),
        ([*handout, "file"], "is no folder"),
        (["curate", "clips", "--out", "file"], "file/frames: Not a directory"),
        (["curate", "clips", "--out", DEEP[:4070]], "File name too long"),
        (["curate", "clips", "--out", f"{LOCKED}/new"], "frames: "),
        (["curate", "clips", "--out", "curated"], "frames was not written by mcpipe curate"),
    ):
        assert main(words) == 1, words
        output = capsys.readouterr()
        assert reason in output.err, words
        assert len(output.err.splitlines()) == 1
        assert output.out == ""
    assert tree(place) == before


def test_attention_maps_replace_no_reference(place, capsys):
    (place / "refs" / "a.png").rename(place / "refs" / "reference_1.png")
    words = ["generate", "--reference", "refs/reference_1.png", "--prompt", "a person", "--out", "b.png"]
    for folder in ("refs", "linked", "out/../refs"):
        assert main([*words, "--attention", folder]) == 1
        assert "is the same as reference 1 refs/reference_1.png" in capsys.readouterr().err


def test_a_picture_that_fails_leaves_the_older_one(place, monkeypatch):
    (place / "sheet.png").write_bytes(b"older")
    monkeypatch.setattr(Image.Image, "save", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space"):
        write_pictures({Path("sheet.png"): Image.new("RGB", (4, 4))})
    assert (place / "sheet.png").read_bytes() == b"older"
