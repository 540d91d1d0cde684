"""One reader: what comes out of it is what people see, whatever goes in; or one line says why not."""

import logging
import os
import struct
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch
from bench_fixtures import scene
from PIL import Image, ImageCms

from mcpipe.models.images import UnusableImageError, is_image, read_image

RGB = scene(3, 48, 36)[0]
GREY = np.asarray(Image.fromarray(RGB).convert("L"))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def as_rgb(grey):
    return np.repeat(grey[:, :, None], 3, axis=2)


def on_white(rgb, alpha):
    share = alpha[:, :, None] / 255
    return np.rint(rgb * share + 255 * (1 - share)).astype(np.uint8)


def read(folder, image, name="image.png", **options):
    """What the reader sees of a file that Pillow wrote."""
    image.save(folder / name, **options)
    return read_image(folder / name)


def close(actual, expected, tolerance=0):
    return actual.shape == expected.shape and np.abs(actual.astype(int) - expected).max() <= tolerance


def test_grey_of_any_depth_keeps_its_tones(tmp_path):
    deep = GREY.astype(np.uint16) * 257
    for name, values in {
        "a.png": deep,
        "a.tif": deep,
        "a.pgm": deep,
        "b.tif": deep.astype(np.int32),
        "c.tif": GREY.astype(np.float32) / 255,
        "d.tif": GREY.astype(np.float32),
        "e.png": GREY,
        "f.png": GREY.astype(np.uint16) * 256,
    }.items():
        assert close(read(tmp_path, Image.fromarray(values), name), as_rgb(GREY)), name
    inverted = read(tmp_path, Image.fromarray(65535 - deep), "white_is_zero.tif", tiffinfo={262: 0})
    assert close(inverted, as_rgb(GREY))
    bits = Image.fromarray(GREY).convert("1")
    assert close(read(tmp_path, bits), as_rgb(np.asarray(bits.convert("L"))))
    for wrong in (np.float32([[0, 300]]), np.float32([[-1, 1]]), np.float32([[np.nan, 0]]), np.int32([[0, 70000]])):
        Image.fromarray(wrong).save(tmp_path / "wrong.tif")
        with pytest.raises(UnusableImageError, match=r"wrong\.tif cannot be read: grey values from .*; expected are 0"):
            read_image(tmp_path / "wrong.tif")


def test_what_is_transparent_is_white(tmp_path):
    alpha = np.linspace(0, 255, RGB.shape[0]).astype(np.uint8)[:, None].repeat(RGB.shape[1], axis=1)
    clear = Image.fromarray(RGB)
    clear.putalpha(Image.fromarray(alpha))
    for mode in ("RGBA", "RGBa", "LA", "La"):
        image = clear.convert("LA").convert("La") if mode == "La" else clear.convert(mode)
        assert close(read_image(image), on_white(as_rgb(GREY) if mode[0] == "L" else RGB, alpha), 2), mode
    for name in ("a.png", "a.tif", "a.webp"):
        assert close(
            read(tmp_path, clear, name, **({"lossless": True} if "webp" in name else {})), on_white(RGB, alpha)
        )
    colours = Image.fromarray(RGB).quantize(16)
    expected = np.where(np.asarray(colours)[:, :, None] == 3, 255, np.asarray(colours.convert("RGB")))
    for name in ("p.png", "p.gif"):
        assert close(read(tmp_path, colours, name, transparency=3), expected), name
    corner = tuple(int(value) for value in RGB[0, 0])
    assert (read(tmp_path, Image.fromarray(RGB), transparency=corner)[0, 0] == 255).all()
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    assert (read(tmp_path, deep, transparency=int(GREY[0, 0]) * 257)[0, 0] == 255).all()


def test_colours_of_other_spaces_are_those_of_the_picture(tmp_path):
    picture = Image.fromarray(RGB)
    assert close(read(tmp_path, picture.convert("CMYK"), "inverted.jpg", quality=100), RGB, 6), "as Adobe writes it"
    assert close(read(tmp_path, picture.convert("CMYK"), "plain.tif"), RGB)
    assert close(read(tmp_path, picture.convert("YCbCr"), "ycc.tif"), RGB, 4)
    lab = ImageCms.profileToProfile(
        picture, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    for seen in (read_image(lab), read(tmp_path, lab, "lab.tif")):
        assert np.abs(seen.astype(int) - RGB).mean() < 2
    assert close(read_image(picture.convert("HSV")), RGB, 6)


def gray_profile(gamma):
    """A minimal ICC profile of grey with one exponent."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    start = 128 + 4 + 2 * 12
    tags = struct.pack(">I4sII4sII", 2, b"kTRC", start, len(curve), b"wtpt", start + len(curve), len(white))
    body = tags + curve + white
    header = struct.pack(">I4sI4s4s4s", 128 + len(body), bytes(4), 0x02100000, b"mntr", b"GRAY", b"XYZ ") + bytes(12)
    return (header + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)).ljust(128, b"\0") + body


def test_profiles_are_converted_to_srgb_and_ones_that_do_not_fit_are_left_alone(tmp_path):
    picture = Image.fromarray(RGB)
    crossed = SRGB.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    for name in ("a.png", "a.tif", "a.webp"):
        options = {"lossless": True} if name == "a.webp" else {}
        assert close(read(tmp_path, picture, name, icc_profile=crossed, **options), RGB[:, :, ::-1], 2), name
    half = picture.copy()
    half.putalpha(128)
    assert close(read(tmp_path, half, icc_profile=crossed), on_white(RGB[:, :, ::-1], np.full_like(GREY, 128)), 2)
    linear = read(tmp_path, Image.fromarray(GREY), icc_profile=gray_profile(1.0))[..., 0] / 255
    expected = np.where(GREY / 255 <= 0.0031308, GREY / 255 * 12.92, 1.055 * (GREY / 255) ** (1 / 2.4) - 0.055)
    assert np.abs(linear - expected).max() < 0.02
    for profile in (SRGB, b"no profile", gray_profile(1.0)):
        assert close(read(tmp_path, picture, icc_profile=profile), RGB)
    assert close(read(tmp_path, Image.fromarray(GREY), icc_profile=SRGB), as_rgb(GREY))


def test_files_are_turned_as_exif_says_and_so_are_images_of_pillow(tmp_path):
    turns = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
             5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
             8: np.rot90}  # fmt: skip
    exif = Image.Exif()
    for orientation, turn in turns.items():
        exif[0x0112] = orientation
        for name, options in {"a.png": {}, "a.tif": {}, "b.tif": {"compression": "tiff_lzw"}}.items():
            assert close(read(tmp_path, Image.fromarray(RGB), name, exif=exif, **options), turn(RGB)), (
                name,
                orientation,
            )
            with Image.open(tmp_path / name) as image:
                assert close(read_image(image), turn(RGB)), (name, orientation)
        assert read(tmp_path, Image.fromarray(RGB), "a.jpg", exif=exif).shape == turn(RGB).shape
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    assert close(read(tmp_path, deep, exif=exif), np.rot90(as_rgb(GREY)))
    assert close(read(tmp_path, Image.fromarray(RGB), exif=b"no EXIF at all"), RGB)


def test_of_several_frames_the_first_is_read(tmp_path):
    frames = [Image.fromarray(np.roll(RGB, 9 * i, axis=1)) for i in range(3)]
    for name in ("a.png", "a.tif", "a.webp"):
        options = {"lossless": True} if name == "a.webp" else {}
        assert close(read(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], **options), RGB), name
    coarse = [frame.quantize(8) for frame in frames]
    seen = read(tmp_path, coarse[0], "a.gif", save_all=True, append_images=coarse[1:])
    assert close(seen, np.asarray(coarse[0].convert("RGB")))


def test_arrays_and_tensors_are_read_with_channels_at_either_end(tmp_path):
    alpha = np.dstack([RGB, np.full(GREY.shape, 255, np.uint8)])
    shares = RGB.astype(np.float64) / 255
    for array, expected in [
        (RGB, RGB), (GREY, as_rgb(GREY)), (GREY[..., None], as_rgb(GREY)), (alpha, RGB), (shares, RGB),
        (shares.astype(np.float16), RGB), (shares.astype(np.float32)[::-1, ::-1], RGB[::-1, ::-1]),
        (RGB.swapaxes(0, 1), RGB.swapaxes(0, 1)), (shares + 0.001, RGB),
    ]:  # fmt: skip
        assert close(read_image(array), expected, 1 if array.dtype != np.uint8 else 0)
        tensor = torch.tensor(np.ascontiguousarray(array))
        assert close(read_image(tensor), expected, 1 if array.dtype != np.uint8 else 0)
        if array.ndim == 3:
            assert close(
                read_image(tensor.movedim(-1, 0).bfloat16()) if array is shares else read_image(tensor.movedim(-1, 0)),
                expected,
                2,
            )
    assert close(read_image(torch.tensor(shares, requires_grad=True)), RGB)
    Image.fromarray(RGB).save(tmp_path / "a.png")
    assert close(read_image(str(tmp_path / "a.png")), RGB)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (np.full((4, 4, 3), np.nan), "holds values from nan to nan; accepted are a path"),
        (np.full((4, 4, 3), np.inf, np.float32), "holds values from inf to inf"),
        (np.full((4, 4, 3), 2.0), "holds values from 2 to 2"),
        (np.full((4, 4, 3), -1.0), "holds values from -1 to -1"),
        (torch.full((3, 4, 4), -0.5), "holds values from -0.5 to -0.5"),
        (np.zeros((4, 4, 3), bool), "holds values of type bool"),
        (np.zeros((4, 4, 3), np.int64), "holds values of type int64"),
        (np.zeros((4, 4, 3), complex), "holds values of type complex128"),
        (torch.zeros((3, 4, 4), dtype=torch.bool), "holds values of type bool"),
        (np.zeros((4, 4, 2), np.uint8), "has the shape 4 x 4 x 2"),
        (np.zeros((3, 8, 8), np.uint8), "has the shape 3 x 8 x 8"),
        (np.zeros((0, 4, 3), np.uint8), "has the shape 0 x 4 x 3"),
        (np.zeros((1, 4, 4, 3), np.uint8), "has the shape 1 x 4 x 4 x 3"),
        (torch.zeros(4), "has the shape 4;"),
        (torch.zeros((3, 4, 4), device="meta"), "is a tensor without plain values"),
        (Image.new("RGB", (0, 4)), "is an image without pixels"),
        (None, "is of type NoneType; accepted are a path, a PIL image, a numpy array"),
        (b"bytes", "is of type bytes"),
        ([[1, 2]], "is of type list"),
    ],
)
def test_other_values_are_refused_in_one_line_that_names_the_argument(source, fault):
    with pytest.raises(ValueError, match=r"^references\[1\] ") as refusal:
        read_image(source, "references[1]")
    assert fault in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_damaged_files_are_refused_in_one_line(tmp_path, capfd):
    formats = {
        "png": {},
        "jpg": {},
        "webp": {},
        "tif": {},
        "gif": {},
        "bmp": {},
        "avif": {},
        "jp2": {},
        "ppm": {},
        "tga": {},
    }
    logging.lastResort.setLevel(logging.WARNING)
    for ending, options in formats.items():
        file = tmp_path / f"cut.{ending}"
        Image.fromarray(RGB).save(file, **options)
        intact = file.read_bytes()
        for part in (0.02, 0.5, 0.9):
            file.write_bytes(intact[: int(part * len(intact))])
            with pytest.raises(UnusableImageError, match=rf"^cut\.{ending} cannot be read: .") as refusal:
                read_image(file)
            assert (refusal.value.reason, "\n" in str(refusal.value)) == ("unreadable", False)
    assert capfd.readouterr().err == ""
    rng = np.random.default_rng(0)
    for ending in formats:
        Image.fromarray(RGB).save(tmp_path / f"a.{ending}")
        intact = (tmp_path / f"a.{ending}").read_bytes()
        for _ in range(40):
            damaged = bytearray(intact)
            for place in rng.integers(min(len(intact), 300), size=4):
                damaged[place] = rng.integers(256)
            (tmp_path / f"a.{ending}").write_bytes(damaged)
            with suppress(UnusableImageError):
                assert read_image(tmp_path / f"a.{ending}").shape[2] == 3


def test_files_that_are_no_images_have_a_name_and_large_ones_are_read_in_silence(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    (tmp_path / "without_ending").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "notes.txt").write_text("none", encoding="utf-8")
    (tmp_path / "program.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", encoding="utf-8")
    (tmp_path / "zeros").write_bytes(bytes(600))
    (tmp_path / "empty.png").touch()
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    assert close(read_image(tmp_path / "without_ending"), RGB)
    reasons = {
        "notes.txt": ("not_a_picture", "it is in no image format that Pillow decodes"),
        "program.eps": ("not_a_picture", "it is in no image format that Pillow decodes"),
        "zeros": ("not_a_picture", "it is in no image format that Pillow decodes"),
        "empty.png": ("unreadable", "it is empty"),
        "phone.heic": ("unreadable", "HEIC is not among the formats of this Pillow; convert it to PNG or JPEG"),
    }
    for name, (reason, fault) in reasons.items():
        with pytest.raises(UnusableImageError, match=rf"^{name} cannot be read: {fault}$") as refusal:
            read_image(tmp_path / name)
        assert refusal.value.reason == reason, name
        with pytest.raises(UnusableImageError, match=rf"^references\[0\]: {name} cannot be read"):
            read_image(str(tmp_path / name), "references[0]")
        assert is_image(tmp_path / name) == (reason == "unreadable"), name
    assert is_image(tmp_path / "without_ending")
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("pipe.png", "gone.png", "."):
        with pytest.raises(FileNotFoundError, match=r"^references\[0\]: "):
            read_image(tmp_path / name, "references[0]")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", RGB[..., 0].size - 1)
        assert close(read_image(tmp_path / "a.png"), RGB)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(
            UnusableImageError, match=r"^a\.png cannot be read: Image size \(1728 pixels\) exceeds limit"
        ):
            read_image(tmp_path / "a.png")
