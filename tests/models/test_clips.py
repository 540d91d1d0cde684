"""Frames by presentation time, from files that an encoder made."""

from fractions import Fraction

import av
import numpy as np
import pytest

from mcpipe.core.records import RejectionError
from mcpipe.curate.clips import clip_files
from mcpipe.curate.frames import FramesParams
from mcpipe.models.video import UnusableClipError, read_clip
from mcpipe.steps.frames import frames_of
from stages.s01_frames import run

PARAMS = FramesParams(
    min_duration_s=0.2, max_decoded=100, min_side_px=1, min_brightness=0.0, max_softness=1.0, min_change=0.0,
    max_jump=255.0, records_per_shard=4,
)  # fmt: skip


def grey(number):
    return np.full((48, 64, 3), 8 * number, np.uint8)


def corner(number):
    """Brightens from frame to frame, the brightest quarter at the upper left."""
    picture = grey(number) // 2
    picture[:24, :32] = 250
    return picture


def encode(path, times_s, codec="libx264", options=None, picture=grey, prepare=None, pixels="yuv420p"):
    """A clip whose n-th frame, shown at times_s[n], has the grey level 8 n."""
    options = options or {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.height, stream.width = picture(0).shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = stream.time_base = Fraction(1, 90)
        if prepare is not None:
            prepare(stream)
        for number, time_s in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = round(time_s * 90), Fraction(1, 90)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def level(picture):
    return round(float(picture.mean()) / 8)


def test_middle_frame_is_found_by_time_not_by_number(tmp_path):
    """Variable frame rate: many frames early, few late."""
    times = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.1, 2.0]
    clip = read_clip(encode(tmp_path / "vfr.mkv", times), 100)
    assert level(clip.initial) == 0
    assert level(clip.middle) == 7
    assert clip.times_s == pytest.approx((0.0, 1.1), abs=0.01)
    assert len(clip.thumbnails) == 8


def test_frames_come_in_presentation_order_despite_b_frames(tmp_path):
    times = [i / 10 for i in range(21)]
    clip = read_clip(encode(tmp_path / "b.mp4", times, options={"bf": "3", "g": "30", "b-adapt": "0"}), 100)
    assert level(clip.initial) == 0
    assert level(clip.middle) == 10
    assert [level(t) for t in clip.thumbnails] == list(range(11))


@pytest.mark.parametrize("name", ["late.mkv", "late.mp4"])
def test_a_clip_may_begin_late(tmp_path, name):
    """The first time stamp is not 0; in an mp4 file an edit list says so."""
    clip = read_clip(encode(tmp_path / name, [2.0 + i / 10 for i in range(21)], options={"bf": "2"}), 100)
    assert (level(clip.initial), level(clip.middle)) == (0, 10)
    assert clip.duration_s == pytest.approx(2.0, abs=0.02)


def test_of_two_middle_frames_the_later_one_counts(tmp_path):
    for name in ("even.mkv", "even.mp4"):
        assert level(read_clip(encode(tmp_path / name, [i / 30 for i in range(24)]), 100).middle) == 12


@pytest.mark.parametrize(
    ("degrees", "bright"), [(0, (0, 0)), (90, (1, 0)), (180, (1, 1)), (270, (0, 1)), (-90, (0, 1))]
)
def test_frames_are_turned_upright(tmp_path, degrees, bright):
    """Turning counterclockwise by 90 degrees takes the upper left corner to the lower left one."""
    path = encode(
        tmp_path / "turned.mp4",
        [i / 10 for i in range(9)],
        picture=corner,
        prepare=lambda stream: stream.set_display_rotation(degrees),
    )
    clip = read_clip(path, 100)
    assert clip.middle.shape == ((64, 48, 3) if degrees % 180 else (48, 64, 3))
    halves = clip.middle.mean(axis=2)
    quarters = halves.reshape(2, halves.shape[0] // 2, 2, halves.shape[1] // 2).mean(axis=(1, 3))
    assert np.unravel_index(quarters.argmax(), (2, 2)) == bright


def test_pixels_become_square(tmp_path):
    def wide(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)

    clip = read_clip(encode(tmp_path / "anamorphic.mkv", [i / 10 for i in range(9)], prepare=wide), 100)
    assert clip.initial.shape == (48, 96, 3)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("ten_bits.mkv", "libx264", "yuv420p10le"),
        ("full_colour.mp4", "libx264", "yuv444p"),
        ("grey.mkv", "ffv1", "gray"),
        ("see_through.mkv", "ffv1", "bgra"),
        ("planar.avi", "mpeg4", "yuv420p"),
        ("web.webm", "libvpx", "yuv420p"),
        ("frames.gif", "gif", "rgb8"),
    ],
)
def test_formats_of_pixels_and_files(tmp_path, name, codec, pixels):
    clip = read_clip(encode(tmp_path / name, [i / 10 for i in range(11)], codec=codec, pixels=pixels), 100)
    assert clip.initial.dtype == np.uint8
    assert clip.initial.shape == (48, 64, 3)
    assert abs(level(clip.middle) - 5) <= 1
    assert len(clip.thumbnails) == 6


def test_odd_sizes_are_read(tmp_path):
    def odd(number):
        return np.full((37, 53, 3), 8 * number, np.uint8)

    clip = read_clip(encode(tmp_path / "odd.mkv", [i / 10 for i in range(5)], "ffv1", picture=odd, pixels="bgra"), 100)
    assert clip.middle.shape == (37, 53, 3)


def test_decoding_is_bounded(tmp_path):
    path = encode(tmp_path / "long.mp4", [i / 10 for i in range(40)], picture=lambda number: grey(number % 30))
    assert len(read_clip(path, 21).thumbnails) == 21
    with pytest.raises(UnusableClipError, match="too_long"):
        read_clip(path, 20)


def test_unusable_files_are_named(tmp_path):
    intact = encode(tmp_path / "whole.mp4", [i / 10 for i in range(21)]).read_bytes()
    (tmp_path / "half.mp4").write_bytes(intact[: len(intact) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "page.mp4").write_text("<!DOCTYPE html>", encoding="utf-8")
    encode(tmp_path / "single.mp4", [0.0])
    for name, reason in (
        ("half", "unreadable"),
        ("empty", "unreadable"),
        ("page", "not_a_video"),
        ("single", "too_short"),
    ):
        with pytest.raises(UnusableClipError) as caught:
            read_clip(tmp_path / f"{name}.mp4", 100)
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
        read_clip(path, 100)


def test_audio_alone_is_no_clip(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(RejectionError, match="no_video"):
        frames_of(path, "sound.mp4", PARAMS)


def test_a_folder_of_clips_becomes_records_and_every_file_is_counted(tmp_path):
    clips = tmp_path / "clips"
    (clips / "deep").mkdir(parents=True)
    encode(clips / "deep" / "ü clip.mp4", [i / 10 for i in range(21)], picture=corner)
    encode(clips / "b.mkv", [i / 10 for i in range(21)], picture=corner)
    (clips / "broken.webm").write_bytes(b"\0nothing")
    (clips / "notes.txt").write_text("no clip", encoding="utf-8")
    assert len(clip_files(clips)) == 4
    run(clips, tmp_path / "a", PARAMS)
    run(clips, tmp_path / "b", PARAMS)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), "the same clips give the same bytes"
    from mcpipe.core.report import read_report
    from mcpipe.core.schemas.curation import FramePair
    from mcpipe.core.shards import read_shards

    assert {frames.clip for frames in read_shards(tmp_path / "a", FramePair)} == {"b.mkv", "deep/ü clip.mp4"}
    report = read_report(tmp_path / "a")
    assert (report["seen"], report["kept"], report["dropped"]) == (4, 2, {"not_a_video": 1, "unreadable": 1})
