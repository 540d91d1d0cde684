"""Files of every broken kind: none stops a run or holds it up, and every one is accounted for."""

import json
import os
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from imports import ROOT

from mcpipe.cli.curate import Adapters, curate, read_settings
from mcpipe.models.protocols import Faces, People
from mcpipe.world.video import FORMATS

SOUND = 64
"""Clips of this size pass the first stage; no person is seen in them."""


class Nobody:
    """Stands in for every model: there is nobody to be seen."""

    name = "puppet"

    def __init__(self, *_):
        pass

    def people(self, _):
        return People(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 17, 3), np.float32))

    def people_of(self, pictures):
        return [self.people(picture) for picture in pictures]

    def masks(self, picture, boxes):
        return np.zeros((len(boxes), *picture.shape[:2]), bool)

    def faces(self, _):
        return Faces(*(np.zeros(shape, np.float32) for shape in ((0, 4), 0, (0, 5, 2), (0, 512))))

    def answer(self, *_, **__):
        return ""


NOBODY = Adapters(Nobody, Nobody, Nobody, Nobody)


def film(file, number, width=SOUND, height=SOUND, container=0):
    """A clip of something that moves."""
    random = np.random.default_rng(0)
    cells = random.integers(0, 256, (height // 8 + 1, (width + 40) // 8 + 1, 3), dtype=np.uint8)
    scene = cells.repeat(8, axis=0).repeat(8, axis=1)[:height]
    pictures = (scene[:, i % 40 : i % 40 + width] for i in range(number))
    suffix, codec, pixels, options = FORMATS[container]
    with av.open(str(file), "w", format={"mkv": "matroska", "mov": "mov"}.get(suffix, suffix)) as box:
        stream = box.add_stream(codec, rate=12, width=width, height=height, pix_fmt=pixels, options=options)
        for picture in pictures:
            box.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        box.mux(stream.encode(None))


def sound(file):
    """A second of noise, without a picture."""
    with av.open(str(file), "w") as box:
        stream = box.add_stream("aac", rate=16000, layout="mono")
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, (1, 1024)).astype(np.float32)
        for i in range(16):
            frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            frame.rate, frame.pts = 16000, i * 1024
            box.mux(stream.encode(frame))
        box.mux(stream.encode(None))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """One file or more of every kind."""
    folder = tmp_path_factory.mktemp("corpus")
    film(folder / "good.mp4", 24)
    intact = (folder / "good.mp4").read_bytes()
    random = np.random.default_rng(1)
    for part in (0.02, 0.3, 0.6, 0.95):
        (folder / f"cut off at {part}.mp4").write_bytes(intact[: int(part * len(intact))])
    for i in range(12):
        flipped = bytearray(intact)
        for place in random.integers(0, len(intact), 1 + 4 * i):
            flipped[place] ^= 1 << int(random.integers(8))
        (folder / f"flipped {i}.mp4").write_bytes(flipped)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "noise.webm").write_bytes(random.bytes(5000))
    (folder / "text.mkv").write_text("version https://git-lfs.github.com/spec/v1", encoding="utf-8")
    (folder / "really an mp4.avi").write_bytes(intact)
    (folder / "notes.txt").write_text("not a clip", encoding="utf-8")
    (folder / "UPPER.MP4").write_bytes(intact)
    film(folder / "one pixel.mkv", 12, 1, 1, container=4)
    film(folder / "odd.avi", 24, 67, 51, container=4)
    film(folder / "one frame.mp4", 1)
    film(folder / "10000 frames.avi", 10_000, 16, 16, container=4)
    sound(folder / "sound.mp4")
    nested = folder / "ein Ordner" / "日本語 \n 🎬"
    nested.mkdir(parents=True)
    (nested / ("ä" * 100 + ".mp4")).write_bytes(intact)
    (folder / os.fsdecode(b"no text \xff.mp4")).write_bytes(intact)
    (folder / "folder.mp4").mkdir()
    (folder / "folder.mp4" / "inside.mp4").write_bytes(intact)
    (folder / "ein Ordner" / "back").symlink_to(folder)
    (folder / "itself.mp4").symlink_to("itself.mp4")
    (folder / "nowhere.mp4").symlink_to("gone")
    (folder / "other name.mp4").symlink_to("good.mp4")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "forbidden.mp4").write_bytes(intact)
    (folder / "forbidden.mp4").chmod(0)
    return folder


def expected(corpus):
    """Every file by its path, links to folders left out."""
    files = [Path(place) / name for place, _, names in os.walk(corpus) for name in names]
    names = [os.fsencode(file.relative_to(corpus)).decode(errors="backslashreplace") for file in files]
    return sorted(names)


@pytest.fixture(scope="module")
def rows(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "curated"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MCPIPE_CLIP_SECONDS", "900")  # also on a machine with other work
        curate(
            corpus,
            out,
            read_settings(ROOT / "params.yaml", ["frames.min_side_px=32", "frames.max_softness=1.0"]),
            NOBODY,
        )
    return {row["clip"]: row for row in json.loads((out / "funnel.json").read_text(encoding="utf-8"))}


def test_every_file_is_accounted_for_by_name(rows, corpus):
    assert sorted(rows) == expected(corpus)
    for row in rows.values():
        assert not row["accepted"]
        assert row["reason"]
        assert row["reason"] != "failed", row


REASONS = {
    "good.mp4": {"too_few_people"},
    "really an mp4.avi": {"too_few_people"},
    "UPPER.MP4": {"too_few_people"},
    "other name.mp4": {"too_few_people"},
    "no text \\xff.mp4": {"too_few_people"},
    "folder.mp4/inside.mp4": {"too_few_people"},
    "ein Ordner/日本語 \n 🎬/" + "ä" * 100 + ".mp4": {"too_few_people"},
    "odd.avi": {"too_few_people"},
    "notes.txt": {"not_a_video"},
    "itself.mp4": {"not_a_file"},
    "nowhere.mp4": {"not_a_file"},
    "pipe.mp4": {"not_a_file"},
    "empty.mp4": {"unreadable"},
    "noise.webm": {"unreadable"},
    "text.mkv": {"not_a_video"},
    "cut off at 0.3.mp4": {"unreadable", "truncated"},
    "one frame.mp4": {"too_short"},
    "one pixel.mkv": {"too_small", "too_short"},
    "sound.mp4": {"no_video"},
    "forbidden.mp4": {"unreadable"} if os.getuid() else {"too_few_people"},
}
"""Why some of the files are refused."""


def test_broken_files_are_refused_by_name(rows):
    for name, reasons in REASONS.items():
        assert rows[name]["reason"] in reasons, name


def test_settings_are_changed_or_refused_in_one_line(tmp_path):
    settings = read_settings(ROOT / "params.yaml", ["identity.min_margin=0.25", "models.pose=some/where.pt"])
    assert settings.identity.min_margin == 0.25
    assert settings.models.pose == str(Path("some/where.pt").absolute())
    for change in ("identity", "identity.min_margin", "identity.nothing=1", "train_rl.seed=1", "frames.min_change=-1"):
        with pytest.raises(ValueError, match="min_change: Input should|should be SECTION.KEY|no setting") as caught:
            read_settings(ROOT / "params.yaml", [change])
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"set models\.pose"):
        curate(tmp_path, tmp_path / "out", settings)
    with pytest.raises(FileNotFoundError, match="no file in"):
        curate(tmp_path, tmp_path / "out", read_settings(ROOT / "params.yaml", []), NOBODY)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("frames/holiday.jpg", "picture"),
        ("samples/report.json", '{"stage": "frames"}'),
        ("identity/report.json", "a report of my own"),
        ("captions", "a file"),
        ("funnel.json", '{"visitors": 100}'),
        ("funnel.json", '[{"visitors": 100}]'),
        ("funnel.json", "\0"),
    ],
)
def test_curation_replaces_nothing_that_is_not_its_own(tmp_path, name, text):
    clips, out = tmp_path / "clips", tmp_path / "out"
    for file, content in ((clips / "notes.txt", "none"), (out / name, text)):
        file.parent.mkdir(parents=True)
        file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=f"out/{name.split('/')[0]} was not written by mcpipe curate"):
        curate(clips, out, read_settings(ROOT / "params.yaml", []), NOBODY)
    assert [file for file in out.rglob("*") if file.is_file()] == [out / name]
    assert (out / name).read_text(encoding="utf-8") == text


def test_curation_replaces_what_it_wrote_whole_or_not(tmp_path):
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    (clips / "notes.txt").write_text("none", encoding="utf-8")
    settings = read_settings(ROOT / "params.yaml", [])
    (out / "frames").mkdir(parents=True)
    first = curate(clips, out, settings, NOBODY)
    assert curate(clips, out, settings, NOBODY) == first
    shutil.copytree(out / "frames", out / ".frames.unfinished")
    (out / "frames" / "report.json").unlink()
    (out / "frames" / "shard-00000.tar").write_bytes(b"")
    assert curate(clips, out, settings, NOBODY) == first, "killed between the old frames and the new"


def test_an_output_over_the_clips_is_told(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"clip")
    with pytest.raises(ValueError, match="lies over the clips in"):
        curate(tmp_path, tmp_path, read_settings(ROOT / "params.yaml", []), NOBODY)
    assert list(tmp_path.iterdir()) == [tmp_path / "clip.mp4"]


def test_an_output_among_the_clips_does_not_eat_itself_however_it_is_named(tmp_path):
    clips, settings = tmp_path / "clips", read_settings(ROOT / "params.yaml", [])
    (clips / "sub").mkdir(parents=True)
    (clips / "notes.txt").write_text("none", encoding="utf-8")
    (tmp_path / "link").symlink_to(clips)
    (clips / "again").symlink_to(clips / "sub")
    seen = []
    for out in (tmp_path / "link" / "out", clips / "sub" / ".." / "out", clips / "again" / "out"):
        for _ in range(2):
            seen.append([row["clip"] for row in curate(clips, out, settings, NOBODY)])
        shutil.rmtree(out)
    assert seen == [["notes.txt"]] * 6
    (clips / "notes.txt").rename(clips / "sub" / "a.mp4")
    for out in (clips / "sub", clips / "again", tmp_path / "link", tmp_path):
        with pytest.raises(ValueError, match="lies over the clips in .*, such as .*sub/a.mp4"):
            curate(clips, out, settings, NOBODY)


def test_curation_replaces_no_clip_and_no_checkpoint(tmp_path):
    clips, out = tmp_path / "clips", tmp_path / "out"
    pose = out / ".progress" / "pose.pt"
    for file in (clips / "a.mp4", out / "frames" / "a.mp4", pose):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"clip")
    (tmp_path / "link").symlink_to(out)
    before = sorted(tmp_path.rglob("*"))
    for folder in (out / "frames", clips):
        with pytest.raises(ValueError, match="frames was not written by mcpipe curate"):
            curate(folder, tmp_path / "link", read_settings(ROOT / "params.yaml", []), NOBODY)
    shutil.move(out / "frames" / "a.mp4", tmp_path)
    settings = read_settings(ROOT / "params.yaml", [f"models.pose={tmp_path / 'link' / '.progress' / 'pose.pt'}"])
    with pytest.raises(ValueError, match=r"progress would be replaced, and with it models\.pose .*pose\.pt"):
        curate(clips, out, settings, NOBODY)
    shutil.move(tmp_path / "a.mp4", out / "frames")
    assert sorted(tmp_path.rglob("*")) == before
