"""Clips of the world: real files, every kind what it claims to be, bytes from the seed alone."""

import csv
import json
import os
from collections import Counter
from functools import partial

import av
import numpy as np
import pytest
from PIL import Image

from mcpipe.world.clips import KINDS, ClipSpec, WorldParams, clip_specs, film_with_truth, write_clip
from mcpipe.world.identities import world_rng
from mcpipe.world.video import FORMATS
from stages import s00_world
from stages.s00_world import run, side_by_side

PARAMS = WorldParams(
    seed=5, width=320, height=240, fps=12, seconds=1.0, good_clips=2, bad_clips_per_kind=1, faces=3, portrait_size=96,
    shots="far", alike=0.0, num_people=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    run(folder / "clips", folder / "faces", folder / "truth", PARAMS)
    return folder


def decoded(file):
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def made(folder, kind, number=0):
    return write_clip(folder, ClipSpec(kind, kind, number), PARAMS)


def test_bytes_depend_on_the_seed_alone(world, tmp_path, monkeypatch):
    """The world was made in as many processes as there are cores; this one in one, the last clip first."""
    monkeypatch.setenv("MCPIPE_WORKERS", "1")
    monkeypatch.setattr(s00_world, "clip_specs", lambda params: reversed(clip_specs(params)))
    run(tmp_path / "clips", tmp_path / "faces", tmp_path / "truth", PARAMS)
    files = sorted(world.rglob("*.*"))
    assert len(files) == 4 + 4 * len(clip_specs(PARAMS)), "faces and their table, clips with three files of truth"
    for file in files:
        assert (tmp_path / file.relative_to(world)).read_bytes() == file.read_bytes(), file.name
    other = PARAMS.model_copy(update={"seed": 6})
    spec = clip_specs(PARAMS)[0]
    clip = write_clip(tmp_path, spec, other).file
    written = next(path for path in world.rglob(f"clips/{spec.name}.*"))
    assert (tmp_path / clip).read_bytes() != written.read_bytes()


def test_an_error_ends_the_rendering_in_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    """A job that fails, a process that is killed, and a number of processes that is none."""
    with pytest.raises(OSError, match="no such place"):
        list(side_by_side([partial(fail, OSError("no such place")), *[partial(int, 1)] * 3], 2))
    with pytest.raises(OSError, match="ended from outside"):
        list(side_by_side([partial(os._exit, 9), partial(int, 1)], 2))
    for workers in ("0", "two", "1.5", ""):
        monkeypatch.setenv("MCPIPE_WORKERS", workers)
        with pytest.raises(ValueError, match="MCPIPE_WORKERS"):
            run(*(tmp_path / name for name in ("clips", "faces", "truth")), PARAMS)
    assert not list(tmp_path.iterdir())


def fail(error):
    raise error


def test_no_encoder_follows_the_clock():
    """With a speed of 0 or more libvpx adapts to how long it takes, so that a busy machine makes other bytes."""
    for _, codec, _, settings in FORMATS:
        assert codec != "libvpx" or int(settings["cpu-used"]) < 0


def test_the_number_of_clips_does_not_change_a_clip(tmp_path):
    more = PARAMS.model_copy(update={"bad_clips_per_kind": 3})
    spec = ClipSpec("x", "one_person", 0)
    files = []
    for folder, params in ((tmp_path / "a", PARAMS), (tmp_path / "b", more)):
        folder.mkdir()
        files.append(folder / write_clip(folder, spec, params).file)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("place", range(len(FORMATS)))
def test_every_format_holds_the_pictures(tmp_path, place):
    truth = made(tmp_path, "good", place)
    pictures = decoded(tmp_path / truth.file)
    assert truth.file.endswith(FORMATS[place][0])
    assert len(pictures) == 12
    for picture, frame in ((pictures[0], truth.initial), (pictures[6], truth.middle)):
        error = np.mean((picture.astype(float) - frame.rgb) ** 2)
        assert 10 * np.log10(255**2 / error) > 28


def test_all_kinds_are_there_and_names_tell_nothing(world):
    truths = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((world / "truth").glob("*.json"))]
    assert Counter(clip["kind"] for clip in truths) == {kind: 2 if kind == "good" else 1 for kind in KINDS}
    assert sorted(clip["clip"] for clip in truths) == sorted(file.name for file in (world / "clips").iterdir())
    assert not any(kind in clip["clip"] for clip in truths for kind in KINDS)


@pytest.mark.parametrize(("kind", "count"), [("good", 2), ("one_person", 1), ("three_people", 3)])
def test_kind_has_its_number_of_people_who_stay_themselves(tmp_path, kind, count):
    truth = made(tmp_path, kind)
    keys = [[person.identity.key for person in frame.people] for frame in (truth.initial, truth.middle)]
    assert len(keys[0]) == count
    assert keys[0] == keys[1]


@pytest.mark.parametrize("number", [0, 1])
def test_identity_changes_without_a_cut(tmp_path, number):
    truth = made(tmp_path, "identity_change", number)
    before, after = ([person.identity.key for person in frame.people] for frame in (truth.initial, truth.middle))
    assert [a == b for a, b in zip(before, after, strict=True)] == [number == 1, number == 0]
    assert truth.initial.people[number].outfit == truth.middle.people[number].outfit
    assert jumps(decoded(tmp_path / truth.file)).max() < 12


def test_cut_shows_other_people_after_a_jump(tmp_path):
    truth = made(tmp_path, "cut")
    before, after = ({person.identity.key for person in frame.people} for frame in (truth.initial, truth.middle))
    assert not before & after
    pictures = decoded(tmp_path / truth.file)
    assert jumps(pictures)[: len(pictures) // 2].max() > 20


@pytest.mark.parametrize("number", [0, 1])
def test_a_face_turned_away_is_nobodys_face(tmp_path, number):
    truth = made(tmp_path, "face_away", number)
    for frame in (truth.initial, truth.middle):
        assert frame.people[number].face_visible == 0
        assert frame.people[1 - number].face_visible > 0.9


@pytest.mark.parametrize("number", [0, 1])
def test_truncated_file_is_unreadable_or_ends_before_the_middle(tmp_path, number):
    truth = made(tmp_path, "truncated", number)
    try:
        pictures = decoded(tmp_path / truth.file)
    except av.FFmpegError:
        return
    assert len(pictures) <= 6


def test_truth_on_disk_matches_the_label_pictures(world):
    for file in (world / "truth").glob("*.json"):
        truth = json.loads(file.read_text(encoding="utf-8"))
        for moment in ("initial", "middle"):
            labels = np.asarray(Image.open(file.with_suffix(f".{moment}.png")))
            for index, person in enumerate(truth[moment]):
                rows, columns = np.nonzero(labels == index + 1)
                assert person["box"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_face_pool_lists_every_portrait_with_its_description(world):
    with (world / "faces" / "faces.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["file"] for row in rows] == ["face_000.png", "face_001.png", "face_002.png"]
    for row in rows:
        assert Image.open(world / "faces" / row["file"]).size == (96, 96)
        assert row["skin"] in row["description"]


def test_some_people_recur_in_other_clothes_but_never_twice_in_a_clip():
    params = PARAMS.model_copy(update={"good_clips": 16})
    casts = []
    for number in range(16):
        rng = world_rng("clips", params.seed, 1, list(KINDS).index("good"), number)
        people = film_with_truth(KINDS["good"](rng, number, params), 0.0, params).people
        casts.append({person.identity.key: person.outfit for person in people})
    assert all(len(cast) == 2 for cast in casts)
    appearances = Counter(key for cast in casts for key in cast)
    assert max(appearances.values()) >= 2
    again = [cast[key] for key, count in appearances.items() if count > 1 for cast in casts if key in cast]
    assert len({outfit.rgb for outfit in again}) == len(again)


def jumps(pictures):
    return np.abs(np.diff(np.stack(pictures).astype(float), axis=0)).mean(axis=(1, 2, 3))
