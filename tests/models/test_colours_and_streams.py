"""What a clip's header says of its colours, fields, streams and container is heeded or refused by name."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from imports import ROOT
from record_fixtures import reason_of

from mcpipe.curate.clips import clip_files
from mcpipe.curate.frames import FramesParams
from mcpipe.models.first_frame import first_frame
from mcpipe.models.video import UnusableClipError, read_clip
from mcpipe.steps.frames import frames_of

PARAMS = FramesParams(
    min_duration_s=0.2, max_decoded=100, min_side_px=1, min_brightness=0.0, max_softness=1.0, min_change=0.0,
    max_jump=255.0, records_per_shard=4,
)  # fmt: skip
CASES = ROOT.parent / "shared" / "cases" / "clips"
RED = (200, 40, 40)


def painted(size, colour, number=0):
    picture = np.full((*size, 3), colour, np.uint8)
    picture[: 4 + number] = 255 - np.array(colour, np.uint8)
    return picture


def add(container, pictures, codec="libx264", pixels="yuv420p", matrix=None, options=None, **tags):
    """Append a stream of pictures; ``matrix`` converts them, ``tags`` are what the header says."""
    stream = container.add_stream(codec, rate=10, options=options or {"crf": "1"} if codec == "libx264" else options)
    stream.height, stream.width = pictures[0].shape[:2]
    stream.pix_fmt = pixels
    for name, value in tags.items():
        setattr(stream.codec_context, name, value)
    return stream, [(picture, matrix) for picture in pictures]


def mux(container, *streams):
    for number in range(len(streams[0][1])):
        for stream, pictures in streams:
            picture, matrix = pictures[number]
            frame = av.VideoFrame.from_ndarray(picture, format="rgba" if picture.shape[2] == 4 else "rgb24")
            frame = frame.reformat(format=stream.pix_fmt, dst_colorspace=matrix)
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
    for stream, _ in streams:
        container.mux(stream.encode(None))


def clip(file, size=(64, 96), **settings):
    with av.open(str(file), "w") as container:
        mux(container, add(container, [painted(size, RED, number) for number in range(8)], **settings))
    return file


def reason(file):
    with pytest.raises(UnusableClipError) as error:
        read_clip(file, 100)
    return error.value.reason


def test_hdr_log_and_wide_gamut_are_refused(tmp_path):
    for number, (tags, expected) in enumerate(
        [
            ({"color_trc": 16, "color_primaries": 9, "colorspace": 9}, "hdr"),
            ({"color_trc": 18, "color_primaries": 9, "colorspace": 9}, "hdr"),
            ({"color_trc": 9}, "hdr"),
            ({"color_trc": 14, "color_primaries": 9, "colorspace": 9}, "wide_gamut"),
        ]
    ):
        assert reason(clip(tmp_path / f"{number}.mp4", **tags)) == expected
    tagged = clip(tmp_path / "sdr.mp4", color_trc=1, color_primaries=1, colorspace=1, matrix=1)
    assert np.abs(read_clip(tagged, 100).initial[-1, -1].astype(int) - RED).max() <= 4


def test_untagged_hd_is_bt709_and_untagged_sd_bt601(tmp_path):
    for size, matrix in (((720, 960), 1), ((480, 640), 5)):
        picture = read_clip(clip(tmp_path / f"{size[0]}.mp4", size, matrix=matrix), 100).initial
        assert np.abs(picture[-1, -1].astype(int) - RED).max() <= 4, size
        glimpse = first_frame(tmp_path / f"{size[0]}.mp4")
        assert np.abs(glimpse[-1, -1].astype(int) - RED).max() <= 4, size
    other = read_clip(clip(tmp_path / "other.mp4", (720, 960), matrix=5), 100).initial
    assert np.abs(other[-1, -1].astype(int) - RED).max() > 4, "the matrices differ visibly"


def test_interlaced_clips_are_refused(tmp_path):
    assert reason(clip(tmp_path / "fields.mp4", options={"x264-params": "interlaced=1"})) == "interlaced"


def test_transparent_pixels_are_white_and_hidden_alpha_is_refused(tmp_path):
    pictures = [np.dstack([painted((64, 96), RED, n), np.full((64, 96), 255, np.uint8)]) for n in range(8)]
    for picture in pictures:
        picture[32:, :, 3] = 0
    with av.open(str(tmp_path / "alpha.mov"), "w") as container:
        mux(container, add(container, pictures, codec="png", pixels="rgba"))
    drawn = read_clip(tmp_path / "alpha.mov", 100).middle
    assert (drawn[40] == 255).all()
    assert (drawn[30] == RED).all()
    assert reason(ROOT / "tests" / "inputs" / "alpha_vp9.webm") == "hidden_alpha"


def test_the_default_stream_is_read_and_its_glimpse_too(tmp_path):
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        small = add(container, [painted((32, 32), (0, 0, 250), n) for n in range(8)])
        large = add(container, [painted((64, 96), RED, n) for n in range(8)])
        small[0].disposition, large[0].disposition = Disposition(0), Disposition.default
        mux(container, small, large)
    assert read_clip(tmp_path / "two.mkv", 100).middle.shape == (64, 96, 3)
    assert first_frame(tmp_path / "two.mkv").shape == (64, 96, 3)


def test_playlists_pictures_and_texts_are_no_videos(tmp_path):
    clip(tmp_path / "real.mp4")
    contents = {
        "ffconcat.mp4": "ffconcat version 1.0\nfile real.mp4\n",
        "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nreal.mp4\n#EXT-X-ENDLIST\n",
        "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nreal.mp4\n#EXT-X-ENDLIST\n",
        "sdp.mov": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "dash.mkv": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>\n',
    }
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
        assert reason(tmp_path / name) in ("not_a_video", "unreadable"), name
        assert first_frame(tmp_path / name) is None
    assert reason(tmp_path / "ffconcat.mp4") == reason(tmp_path / "hls.m3u8") == "not_a_video"


def test_a_stream_cut_at_its_head_has_its_middle_between_frames_that_decode(tmp_path):
    whole = clip(tmp_path / "whole.ts", options={"crf": "1", "g": "4", "bf": "0"})
    data = whole.read_bytes()
    packets = [data[i : i + 188] for i in range(0, len(data), 188)]
    starts = [i for i, packet in enumerate(packets) if packet[1] & 0x40 and (packet[1] & 0x1F) << 8 | packet[2] == 256]
    cut = tmp_path / "cut.ts"
    cut.write_bytes(b"".join(packets[: starts[0]] + packets[starts[1] :]))
    clip_frames = read_clip(cut, 100)
    first, middle = clip_frames.times_s
    assert first == pytest.approx(read_clip(whole, 100).times_s[0] + 0.4)
    assert middle == pytest.approx(first + 0.2, abs=0.11)


def test_every_file_has_a_row_whatever_it_is_called(tmp_path, monkeypatch):
    folder = tmp_path / "a:b"
    folder.mkdir()
    clip(folder / "real.mp4").rename(folder / "real.without_ending")
    clip(folder / "real.ts", codec="mpeg2video", options={})
    (folder / "notes.txt").write_text("a note")
    os.mkfifo(folder / "pipe.mp4")
    undecodable = [os.fsencode(folder) + b"/x\xff.mp4", os.fsencode(folder) + b"/x\\xff.mp4"]
    for name in undecodable:
        Path(os.fsdecode(name)).write_bytes(b"nothing")
    monkeypatch.chdir(tmp_path)
    files = clip_files(folder.relative_to(tmp_path))
    assert len({file.key for file in files}) == len(files) == 6
    reasons = {file.name: reason_of(frames_of, *file.inputs(), PARAMS) for file in files}
    assert reasons["real.without_ending"] is reasons["real.ts"] is None
    assert reasons["notes.txt"] in ("not_a_video", "unreadable")
    assert reasons["pipe.mp4"] == "not_a_file"
    assert all(frames_of(*file.inputs(), PARAMS).key == file.key for file in files if reasons[file.name] is None)


@pytest.mark.skipif(not CASES.is_dir(), reason="the reported clips are not part of the repository")
def test_reported_clips():
    reasons = {
        "hdr10_pq.mp4": "hdr", "interlaced_x264.mp4": "interlaced", "alpha_vp9.webm": "hidden_alpha",
        "concat.mp4": "not_a_video",
    }  # fmt: skip
    for name, expected in reasons.items():
        assert reason(CASES / name) == expected
    for name in ("base.mp4", "preview_first.mkv", "seg.ts", "progressive_same_size.mp4"):
        assert read_clip(CASES / name, 6000).middle.shape[0] >= 240, name
