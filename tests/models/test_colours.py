"""Colours, fields and transparency are read as a clip states them, or the clip is refused by name."""

from fractions import Fraction

import av
import numpy as np
import pytest
from clip_fixtures import CASES, RED, add, clip, is_red, mux, painted, reason
from imports import ROOT

from mcpipe.models.first_frame import first_frame
from mcpipe.models.video import read_clip

ALPHA_VP9 = ROOT / "tests" / "inputs" / "alpha_vp9.webm"
LUMA = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 7: (0.212, 0.087)}
"""Weights of red and blue by matrix (ITU-T H.273, table 4)."""


def test_hdr_log_and_wide_gamut_are_refused(tmp_path):
    cases = [
        ({"color_trc": 16, "color_primaries": 9, "colorspace": 9}, "hdr"),
        ({"color_trc": 18, "color_primaries": 9, "colorspace": 9}, "hdr"),
        ({"color_trc": 9}, "hdr"),
        ({"colorspace": 14, "pixels": "yuv444p"}, "hdr"),
        ({"color_trc": 14, "color_primaries": 9, "colorspace": 9}, "wide_gamut"),
        ({"colorspace": 9}, "wide_gamut"),
        ({"color_trc": 1, "color_primaries": 12, "colorspace": 1}, "wide_gamut"),
        ({"colorspace": 8, "pixels": "yuv444p"}, "unknown_matrix"),
    ]
    for number, (tags, expected) in enumerate(cases):
        assert reason(clip(tmp_path / f"{number}.mp4", **tags)) == expected, tags
    tagged = clip(tmp_path / "sdr.mp4", color_trc=1, color_primaries=1, colorspace=1, matrix=1)
    assert is_red(read_clip(tagged, 100).initial)


def test_hdr_is_seen_where_only_the_container_or_metadata_say_so(tmp_path):
    """Frames of HEVC forget what the container says; a display's metadata without a transfer come with HDR alone."""
    silent = "log-level=none:colorprim=undef:transfer=undef:colormatrix=undef"
    display = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    for number, (parameters, transfer) in enumerate([(silent, 16), (silent, 18), (f"{silent}:{display}", 2)]):
        options = {"x265-params": parameters}
        file = clip(
            tmp_path / f"{number}.mkv", codec="libx265", options=options, pixels="yuv420p10le", color_trc=transfer
        )
        assert reason(file) == "hdr", parameters
    plain = clip(
        tmp_path / "plain.mkv", codec="libx265", options={"x265-params": f"{silent}:qp=1"}, pixels="yuv420p10le"
    )
    assert is_red(read_clip(plain, 100).middle)


def test_untagged_hd_is_bt709_and_untagged_sd_bt601(tmp_path):
    for size, matrix in (((720, 960), 1), ((536, 1280), 1), ((480, 640), 5)):
        file = clip(tmp_path / f"{size[0]}.mp4", size, matrix=matrix, number=3)
        assert is_red(read_clip(file, 100).initial), size
        assert is_red(first_frame(file)), size
    other = read_clip(clip(tmp_path / "other.mp4", (720, 960), matrix=5, number=3), 100).initial
    assert not is_red(other), "the matrices differ visibly"


def coded(matrix, is_full, bits):
    """Luma, blue and red difference of the colour red, as numbers of so many bits."""
    red, blue = LUMA[matrix]
    r, g, b = (part / 255 for part in RED)
    y = red * r + (1 - red - blue) * g + blue * b
    differences = (b - y) / 2 / (1 - blue), (r - y) / 2 / (1 - red)
    if is_full:
        return [round(y * (2**bits - 1)), *(round(d * (2**bits - 1)) + 2 ** (bits - 1) for d in differences)]
    scale = 2 ** (bits - 8)
    return [round((16 + 219 * y) * scale), *(round((128 + 224 * d) * scale) for d in differences)]


def uniform(file, codec, pixels, matrix, is_full):
    """A clip whose planes hold one number each, tagged with its matrix and range."""
    bits = av.VideoFormat(pixels).components[0].bits
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=10, width=64, height=48, pix_fmt=pixels)
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if is_full else 1
        for number in range(4):
            frame = av.VideoFrame(64, 48, pixels)
            for plane, value in zip(frame.planes, coded(matrix, is_full, bits), strict=True):
                kind = np.dtype("u1" if bits == 8 else "<u2")
                plane.update(np.full(plane.buffer_size // kind.itemsize, value, kind).tobytes())
            frame.colorspace, frame.color_range = matrix, 2 if is_full else 1
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file


def test_depth_range_and_matrix_are_respected(tmp_path):
    for pixels in ("yuv420p", "yuv422p", "yuv420p10le", "yuv422p12le", "yuv444p16le"):
        for matrix in LUMA:
            for is_full in (False, True):
                file = uniform(tmp_path / "a.mkv", "ffv1", pixels, matrix, is_full)
                assert is_red(read_clip(file, 100).middle), (pixels, matrix, is_full)
    assert is_red(read_clip(uniform(tmp_path / "jpeg.avi", "mjpeg", "yuvj420p", 5, is_full=True), 100).middle)


def test_interlaced_clips_are_refused(tmp_path):
    assert reason(clip(tmp_path / "fields.mp4", options={"x264-params": "interlaced=1"})) == "interlaced"
    assert reason(clip(tmp_path / "header.mkv", codec="ffv1", field_order=2)) == "interlaced"
    assert read_clip(clip(tmp_path / "frames.mkv", codec="ffv1", field_order=1), 100).num_frames == 8


def see_through(file, codec, pixels, container_format=None):
    """Red above, fully transparent below."""
    pictures = [np.dstack([painted((64, 96), RED, n), np.full((64, 96), 255, np.uint8)]) for n in range(8)]
    for picture in pictures:
        picture[32:, :, 3] = 0
    with av.open(str(file), "w", format=container_format) as container:
        mux(container, add(container, pictures, codec=codec, pixels=pixels))
    return file


def test_transparent_pixels_are_white(tmp_path):
    for name, codec, pixels in (
        ("png.mov", "png", "rgba"), ("prores.mov", "prores_ks", "yuva444p10le"), ("ffv1.mkv", "ffv1", "yuva420p"),
        ("qtrle.mov", "qtrle", "argb"), ("pictures.apng", "apng", "rgba"),
    ):  # fmt: skip
        drawn = read_clip(see_through(tmp_path / name, codec, pixels), 100).middle
        assert drawn[40:].min() >= 254, name
        assert is_red(drawn[:28]), name


def test_hidden_alpha_is_refused_also_where_the_header_keeps_silent(tmp_path):
    assert reason(ALPHA_VP9) == "hidden_alpha"
    content = ALPHA_VP9.read_bytes()
    alpha_mode, void = bytes.fromhex("53c08101"), bytes.fromhex("ec820000")
    assert content.count(alpha_mode) == 1
    (tmp_path / "silent.webm").write_bytes(content.replace(alpha_mode, void))
    assert reason(tmp_path / "silent.webm") == "hidden_alpha"


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
