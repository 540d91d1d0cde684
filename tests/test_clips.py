"""Frames by presentation time, from files that an encoder made."""

from fractions import Fraction

import av
import numpy as np
import pytest

from mcpipe.curate.frames import FramesParams
from mcpipe.models.video import UnusableClipError, read_clip
from mcpipe.records import Rejection
from stages.s01_frames import clip_files, frames_of, run

PARAMS = FramesParams(
    min_duration_s=0.2, min_brightness=0.0, min_sharpness=0.0, min_change=0.0, max_jump=255.0, records_per_shard=4
)


def encode(path, times_s, codec="libx264", options=None):
    """A clip whose n-th frame, shown at times_s[n], has the grey level 8 n."""
    options = options or {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 90)
        for number, time_s in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(time_s * 90), Fraction(1, 90)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def level(picture):
    return round(float(picture.mean()) / 8)


def test_middle_frame_is_found_by_time_not_by_number(tmp_path):
    """Variable frame rate: many frames early, few late."""
    times = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.1, 2.0]
    clip = read_clip(encode(tmp_path / "vfr.mkv", times))
    assert level(clip.initial) == 0
    assert level(clip.middle) == 7
    assert clip.times_s == pytest.approx((0.0, 1.1), abs=0.01)
    assert len(clip.thumbnails) == 8


def test_frames_come_in_presentation_order_despite_b_frames(tmp_path):
    times = [i / 10 for i in range(21)]
    clip = read_clip(encode(tmp_path / "b.mp4", times, options={"bf": "3", "g": "30", "b-adapt": "0"}))
    assert level(clip.initial) == 0
    assert level(clip.middle) == 10
    assert [level(t) for t in clip.thumbnails] == list(range(11))


def test_unusable_files_are_named(tmp_path):
    whole = encode(tmp_path / "whole.mp4", [i / 10 for i in range(21)]).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "page.mp4").write_text("<!DOCTYPE html>")
    encode(tmp_path / "single.mp4", [0.0])
    for name, reason in (
        ("half", "unreadable"),
        ("empty", "unreadable"),
        ("page", "unreadable"),
        ("single", "too_short"),
    ):
        with pytest.raises(UnusableClipError) as caught:
            read_clip(tmp_path / f"{name}.mp4")
        assert caught.value.reason == reason, name


def test_a_clip_cut_off_on_its_way_is_truncated(tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "long.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(60):
            noise = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(UnusableClipError, match="truncated"):
        read_clip(path)


def test_audio_alone_is_no_clip(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    verdict = frames_of(path, tmp_path, PARAMS)
    assert isinstance(verdict, Rejection)
    assert verdict.reason == "no_video"


def test_a_folder_of_clips_becomes_records_and_every_file_is_counted(tmp_path):
    clips = tmp_path / "clips"
    (clips / "deep").mkdir(parents=True)
    encode(clips / "deep" / "ü clip.mp4", [i / 10 for i in range(21)])
    encode(clips / "b.mkv", [i / 10 for i in range(21)])
    (clips / "broken.webm").write_bytes(b"nothing")
    (clips / "notes.txt").write_text("no clip")
    assert len(clip_files(clips)) == 3
    run(clips, tmp_path / "a", PARAMS)
    run(clips, tmp_path / "b", PARAMS)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), "the same clips give the same bytes"
    from mcpipe.report import read_report
    from mcpipe.shards import read_shards

    assert {r.meta["clip"] for r in read_shards(tmp_path / "a")} == {"b.mkv", "deep/ü clip.mp4"}
    report = read_report(tmp_path / "a")
    assert (report["seen"], report["kept"], report["dropped"]) == (3, 2, {"unreadable": 1})
