"""Which files are clips, which of their streams is read, and between which frames the middle lies."""

import os
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from clip_fixtures import RED, add, clip, is_red, mux, painted, reason
from record_fixtures import reason_of

from mcpipe.core.report import read_report
from mcpipe.curate.clips import clip_files
from mcpipe.curate.frames import FramesParams
from mcpipe.models.first_frame import first_frame
from mcpipe.models.video import read_clip
from mcpipe.report.gallery import Fate
from mcpipe.report.inputs import refused_at_once
from mcpipe.steps.frames import frames_of
from stages.s01_frames import run

PARAMS = FramesParams(
    min_duration_s=0.2, max_decoded=100, min_side_px=1, min_brightness=0.0, max_softness=1.0, min_change=0.0,
    max_jump=255.0, records_per_shard=4,
)  # fmt: skip
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nreal.mp4\n#EXT-X-ENDLIST\n"
TEXTS = {
    "ffconcat": b"ffconcat version 1.0\nfile real.mp4\n",
    "hls": HLS.encode(),
    "hls in utf-16": HLS.encode("utf-16"),
    "hls in latin-1": HLS.replace("real", "r\xe9al").encode("latin-1"),
    "bare m3u": b"real.mp4\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "dash": b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>\n',
    "smil": b'<smil><body><video src="real.mp4"/></body></smil>\n',
    "pointer": b"version https://git-lfs.github.com/spec/v1\n",
}


def test_the_default_stream_is_read_and_its_glimpse_too(tmp_path):
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        preview = add(container, [painted((32, 32), (0, 0, 250), n) for n in range(8)])
        film = add(container, [painted((64, 96), RED, n) for n in range(8)])
        extra = add(container, [painted((96, 128), (0, 0, 250), n) for n in range(8)])
        preview[0].disposition = extra[0].disposition = Disposition(0)
        film[0].disposition = Disposition.default
        mux(container, preview, film, extra)
    with av.open(str(tmp_path / "covered.mp4"), "w") as container:
        cover = add(container, [painted((128, 128), (0, 0, 250))], "mjpeg", "yuvj420p")
        film = add(container, [painted((64, 96), RED, n) for n in range(8)])
        cover[0].disposition = Disposition.attached_pic
        mux(container, cover)
        mux(container, film)
    for name in ("two.mkv", "covered.mp4"):
        with av.open(str(tmp_path / name)) as container:
            assert len(container.streams.video) > 1, name
        assert read_clip(tmp_path / name, 100).middle.shape == (64, 96, 3), name
        assert first_frame(tmp_path / name).shape == (64, 96, 3), name


def test_playlists_and_texts_are_no_videos_whatever_they_are_called(tmp_path):
    clip(tmp_path / "real.mp4")
    for name, text in TEXTS.items():
        for ending in ("mp4", "mkv", "ts", "m3u8", "txt"):
            file = tmp_path / f"{name}.{ending}"
            file.write_bytes(text)
            assert reason(file) == "not_a_video", file.name
            assert first_frame(file) is None
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    assert reason(tmp_path / "noise.mp4") == "unreadable"


def test_everything_that_ffmpeg_reads_is_read_whatever_it_is_called(tmp_path):
    for number, (name, codec, pixels) in enumerate([
        ("h264", "libx264", "yuv420p"), ("mpeg2video", "mpeg2video", "yuv420p"), ("m4v", "mpeg4", "yuv420p"),
        ("vob", "mpeg2video", "yuv420p"), ("asf", "wmv2", "yuv420p"), ("swf", "flv1", "yuv420p"),
        ("rm", "rv20", "yuv420p"), ("ivf", "libvpx", "yuv420p"), ("nut", "ffv1", "yuv420p"),
        ("yuv4mpegpipe", "rawvideo", "yuv420p"), ("roq", "roqvideo", "yuvj444p"), ("3gp", "mpeg4", "yuv420p"),
    ]):  # fmt: skip
        options = {"bf": "2"} if codec == "libx264" else {}
        file = clip(tmp_path / f"{number}.data", container_format=name, codec=codec, pixels=pixels, options=options)
        clip_frames = read_clip(file, 100)
        assert clip_frames.num_frames == 8, name
        assert np.diff(clip_frames.times_s) == pytest.approx(0.4, abs=0.01), name
        assert is_red(clip_frames.middle), name
        edge = clip_frames.middle[:, 48, 1] > 128
        assert edge[:7].all(), f"{name}: the fifth picture has an edge of eight lines"
        assert not edge[9:].any(), name
        assert first_frame(file) is not None, name


def noisy(file, codec="libx264", **options):
    """Four seconds that cannot be compressed, so that bytes and time go together."""
    random = np.random.default_rng(0)
    with av.open(str(file), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, rate=10, width=96, height=64, pix_fmt="yuv420p", options=options)
        for _ in range(40):
            noise = random.integers(0, 256, (64, 96, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    return file


def test_frames_behind_the_middle_count_only_if_they_can_be_decoded(tmp_path):
    intact = noisy(tmp_path / "whole.mp4", bf="0")
    content = intact.read_bytes()
    assert read_clip(intact, 100).times_s[1] == 2.0
    ends = {}
    for part in (0.93, 0.6):
        kept = content[: int(part * len(content))]
        (tmp_path / f"{part}.mp4").write_bytes(kept + np.random.default_rng(1).bytes(len(content) - len(kept)))
        ends[part] = tmp_path / f"{part}.mp4"
    moved = read_clip(ends[0.93], 100)
    assert 36 <= moved.num_frames < 40
    assert moved.times_s[1] == pytest.approx((moved.num_frames // 2) / 10)
    assert len(moved.thumbnails) == moved.num_frames // 2 + 1
    assert reason(ends[0.6]) == "truncated"


def test_a_stream_cut_at_its_head_has_its_middle_between_frames_that_decode(tmp_path):
    intact = clip(tmp_path / "whole.ts", options={"crf": "1", "g": "4", "bf": "0"})
    data = intact.read_bytes()
    packets = [data[i : i + 188] for i in range(0, len(data), 188)]
    starts = [i for i, packet in enumerate(packets) if packet[1] & 0x40 and (packet[1] & 0x1F) << 8 | packet[2] == 256]
    cut = tmp_path / "cut.ts"
    cut.write_bytes(b"".join(packets[: starts[0]] + packets[starts[1] :]))
    clip_frames = read_clip(cut, 100)
    first, middle = clip_frames.times_s
    assert first == pytest.approx(read_clip(intact, 100).times_s[0] + 0.4)
    assert middle == pytest.approx(first + 0.2, abs=0.11)


def folder_of_everything(folder):
    """A clip under odd names, and what is none."""
    folder.mkdir()
    clip(folder / "real.mp4").rename(folder / "real.without_ending")
    clip(folder / "file:real.ts", codec="mpeg2video", options={})
    (folder / "notes.txt").write_text("a note", encoding="utf-8")
    os.mkfifo(folder / "pipe.mp4")
    for name in (b"/x\xff.mp4", b"/x\xfe.mp4", b"/x\\xff.mp4", b"/x%FF.mp4"):
        Path(os.fsdecode(os.fsencode(folder) + name)).write_bytes(b"\0nothing")
    (folder / "linked").symlink_to(folder.parent / "elsewhere")
    (folder.parent / "elsewhere").mkdir()
    clip(folder.parent / "elsewhere" / "fields.mp4", options={"x264-params": "interlaced=1"})


def test_every_file_has_a_row_whatever_it_is_called(tmp_path, monkeypatch):
    folder_of_everything(tmp_path / "a:b")
    monkeypatch.chdir(tmp_path)
    files = clip_files(Path("a:b"))
    assert len({file.key for file in files}) == len({file.title for file in files}) == len(files) == 9
    reasons = {file.name: reason_of(frames_of, *file.inputs(), PARAMS) for file in files}
    assert reasons["real.without_ending"] is reasons["file:real.ts"] is None
    assert (reasons["notes.txt"], reasons["pipe.mp4"]) == ("not_a_video", "not_a_file")
    run(Path("a:b"), tmp_path / "frames", PARAMS)
    report = read_report(tmp_path / "frames")
    assert (report["seen"], report["kept"]) == (9, 2)
    assert report["dropped"] == {"unreadable": 4, "not_a_video": 1, "not_a_file": 1, "interlaced": 1}
    fates = {lost["key"]: Fate("frames", lost["reason"], 1) for lost in report["rejections"]}
    tiles = refused_at_once(Path("a:b"), fates)
    assert {tile.name for tile in tiles.values()} == {file.title for file in files if reasons[file.name]}
    assert [tile.name for tile in tiles.values() if tile.figure is not None] == ["linked/fields.mp4"]
    assert "".join(tile.name for tile in tiles.values()).encode()
