"""Curation of real clips by real pose and face checkpoints; what cannot be had is stood in for (see real_clips.py)."""

import json

import av
import cv2
import numpy as np
import pytest
from imports import ROOT
from real_clips import FACES, REAL, main
from stand_ins import body

from mcpipe.core.params import read_params
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.shards import read_shards
from mcpipe.models.faces import InsightFaces
from mcpipe.steps.identity import IdentityParams

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not REAL.is_dir(), reason=f"the real clips are not at {REAL.parent.name}/{REAL.name}"),
]
REASONS = {
    "accept/intel_female_and_male.gif": None,
    "accept/intel_female_and_male.mp4": None,
    "reject/intel_classroom_four_people.gif": "too_many_people",
    "reject/intel_no_person_bottles.mp4": "too_few_people",
    "reject/intel_one_by_one.mp4": "too_few_people",
    "reject/intel_one_person_asl.mkv": "too_few_people",
    "reject/intel_walking_faces_too_small.mp4": "face_too_small",
    "reject/sam2_bedroom_two_children_blurred_faces.mp4": "too_few_people",  # one hides behind the other in the middle
    "reject/sam2_hands_only_blocks.mp4": "too_few_people",
    "reject/sam2_one_person_dog.mp4": "too_few_people",
    "reject/sam2_one_person_juggle.mp4": "too_few_people",
    "reject/sam2_torso_only_cups.mp4": "too_few_people",
}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    clips = folder / "clips"
    clips.mkdir()
    for name in ("accept", "reject"):
        (clips / name).symlink_to(REAL / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MCPIPE_ENGINE", "inline")
        assert main([str(clips), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_every_clip_is_accepted_or_refused_for_the_right_reason(out):
    funnel = {row["clip"]: row for row in json.loads((out / "funnel.json").read_text(encoding="utf-8"))}
    assert {name: row["reason"] for name, row in funnel.items()} == REASONS
    for row in funnel.values():
        assert row["accepted"] == (row["reason"] is None)
        assert row["scores"]


def test_both_files_of_one_scene_show_the_same_two_people(out):
    samples = list(read_shards(out / "samples", Sample))
    assert len({tuple(sample.names) for sample in samples}) == 1
    assert len({sample.split for sample in samples}) == 1
    for sample in samples:
        assert sample.masks.any(axis=(1, 2)).all()
        assert {"similarity", "margin", "times_s", "versions", "recogniser"} <= set(sample.provenance)


def of_each(change):
    return lambda frames: [change(frame) for frame in frames]


def moved(frame):
    """As if the camera was swept while the shutter was open."""
    return cv2.filter2D(frame, -1, np.full((1, 15), 1 / 15))


def nearer(frame):
    """As if the man stood 80 px nearer to the woman: a square of the frame's height holds both faces."""
    wall = np.repeat(frame[:, -1:], 80, axis=1)
    return np.concatenate([frame[:, :165], frame[:, 245:], wall], axis=1)


CHANGES = {
    "nearer.mp4": (None, of_each(nearer)),
    "at the edge.mp4": (None, of_each(lambda frame: frame[:, 50:])),
    "faces too far apart for 2.35 to 1.mp4": ("no_square_holds_all", of_each(lambda frame: frame[30:234])),
    "mirrored.mp4": (None, of_each(lambda frame: frame[:, ::-1])),
    "dark.mp4": (None, of_each(lambda frame: (frame * 0.2).astype(np.uint8))),
    "upright with bars.mp4": (None, of_each(lambda frame: np.pad(frame, [(290, 290), (0, 0), (0, 0)]))),
    "large.mkv": (None, lambda frames: [cv2.resize(frame, (1920, 1080)) for frame in frames[:8]]),
    "half.mp4": ("face_too_small", of_each(lambda frame: cv2.resize(frame, (240, 136), interpolation=cv2.INTER_AREA))),
    "moved.mp4": ("blurred", of_each(moved)),
    "frozen.mp4": ("duplicate", lambda frames: frames[:1] * len(frames)),
    "turned over.mp4": ("cut", lambda frames: frames[:8] + [frame[:, ::-1] for frame in frames[8:]]),
    "upside down.mp4": ("too_few_people", of_each(lambda frame: frame[::-1])),
}


def decoded(file, first=0):
    """Every second frame of a file."""
    with av.open(str(file)) as container:
        return [f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(video=0)) if i >= first][::2]


def encode(file, frames):
    with av.open(str(file), "w") as box:
        height, width = frames[0].shape[:2]
        options = {"crf": "18", "preset": "ultrafast"}
        stream = box.add_stream("libx264", rate=12, width=width, height=height, pix_fmt="yuv420p", options=options)
        for frame in frames:
            box.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        box.mux(stream.encode(None))


def test_what_was_done_to_a_clip_changes_the_verdict_only_where_it_should(tmp_path, monkeypatch):
    (tmp_path / "clips").mkdir()
    frames = decoded(REAL / "accept" / "intel_female_and_male.mp4")
    for name, (_, change) in CHANGES.items():
        encode(tmp_path / "clips" / name, change(frames))
    children = decoded(REAL / "reject" / "sam2_bedroom_two_children_blurred_faces.mp4", first=120)
    encode(tmp_path / "clips" / "children.mp4", children[:24])
    monkeypatch.setenv("MCPIPE_ENGINE", "inline")
    assert main([str(tmp_path / "clips"), "--out", str(tmp_path / "out")]) == 0
    verdicts = {
        row["clip"]: row["reason"] for row in json.loads((tmp_path / "out" / "funnel.json").read_text(encoding="utf-8"))
    }
    expected = {name: reason for name, (reason, _) in CHANGES.items()} | {"children.mp4": "face_blurred"}
    assert verdicts == expected
    samples = read_shards(tmp_path / "out" / "samples", Sample)
    windows = {sample.clip: sample.provenance["window_px"] for sample in samples}
    assert windows["nearer.mp4"][1:] == [0, frames[0].shape[0]], "inside the frame"
    assert windows["at the edge.mp4"][1] < 0, "the faces stand too far apart: it reaches over the frame's edges"


@pytest.fixture(scope="module")
def analyser():
    params = read_params(ROOT / "params.yaml", "identity", IdentityParams)
    return InsightFaces(FACES, params.min_face_score, params.detection_size)


def test_faces_that_fill_the_picture_are_found(analyser):
    for file in sorted((REAL / "faces").glob("*.jpg")):
        picture = np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])
        faces = analyser.faces(picture)
        assert len(faces.boxes) == 1, file.name


@pytest.mark.parametrize(("setting", "file"), [("models.faces", "."), ("models.pose", "yolo11n-pose.LFSPOINTER.onnx")])
def test_broken_checkpoints_are_refused_in_one_line(tmp_path, capfd, setting, file):
    clips = tmp_path / "clips"
    clips.symlink_to(REAL / "accept")
    broken = tmp_path / "models" / "broken"
    broken.parent.mkdir()
    broken.symlink_to(REAL / "broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MCPIPE_ENGINE", "inline")
        assert main([str(clips), "--out", str(tmp_path / "out"), "-S", f"{setting}={broken / file}"]) == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "broken" in errors[0]


def test_the_stand_in_mask_covers_a_person():
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[[0, 5, 6], :] = [[50, 20, 1], [30, 50, 1], [70, 50, 1]]
    mask = body(keypoints, np.array([20, 5, 80, 100], np.float32), (100, 100))
    assert mask[20, 50]
    assert mask[90, 50]
    assert not mask[:, :20].any()
