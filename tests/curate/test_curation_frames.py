"""Whether the two frames of a clip can show the same people at two moments."""

import cv2
import numpy as np
import pytest
from record_fixtures import reason_of

from mcpipe.curate.frames import FramesParams, check_frames, frame_scores, picture_window

FRAMES = FramesParams(
    min_duration_s=0.5, max_decoded=100, min_side_px=32, min_brightness=8.0, max_softness=0.65, min_change=0.5,
    max_jump=3.0, records_per_shard=1,
)  # fmt: skip


def noise(seed, height=64, width=80):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def drifting(num, step=1, seed=0):
    """Thumbnails of a picture that shifts a little from frame to frame."""
    picture = cv2.GaussianBlur(noise(seed, 32, 32 + num * step), (0, 0), 4)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    return np.stack([picture[:, i * step : i * step + 32] for i in range(num)])


def flashed(thumbnails, at, num=2):
    lit = thumbnails.copy()
    lit[at : at + num] = 250
    lit[at : at + num, ::3] = 200
    return lit


def faded(thumbnails):
    light = np.abs(np.linspace(1, -1, len(thumbnails)))[:, None, None, None]
    return (thumbnails * light).astype(np.uint8)


def stranger(thumbnails):
    """The same place, with somebody else from the middle on in a third of the picture."""
    changed = thumbnails.copy()
    changed[len(changed) // 2 :, 6:32, 8:20] = 255 - changed[len(changed) // 2 :, 6:32, 8:20]
    return changed


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        (None, {}),
        ("too_short", {"duration_s": 0.2}),
        ("too_small", {"initial": noise(1, 20, 90), "middle": noise(2, 20, 90)}),
        ("black", {"middle": np.zeros((64, 80, 3), np.uint8)}),
        ("blurred", {"middle": cv2.GaussianBlur(noise(1), (0, 0), 1.5)}),
        ("blurred", {"initial": np.full((64, 80, 3), 90, np.uint8)}),
        ("duplicate", {"thumbnails": np.repeat(drifting(1), 6, axis=0)}),
        ("cut", {"thumbnails": np.concatenate([drifting(5), drifting(5, seed=1)])}),
        ("cut", {"thumbnails": np.concatenate([drifting(9), drifting(1, seed=1)])}),  # right before the middle frame
        ("cut", {"thumbnails": stranger(drifting(12))}),
        ("cut", {"thumbnails": faded(drifting(21))}),
        (None, {"thumbnails": drifting(12, step=2)}),
        (None, {"thumbnails": drifting(12, step=9)}),  # lively motion
        (None, {"thumbnails": flashed(drifting(12), at=5)}),
        (None, {"thumbnails": (drifting(12) * np.linspace(1, 0.6, 12)[:, None, None, None]).astype(np.uint8)}),
    ],
)
def test_frames_are_refused_by_name(reason, change):
    clip = {"initial": noise(1), "middle": noise(2), "thumbnails": drifting(10), "duration_s": 1.0} | change
    duration_s = clip.pop("duration_s")
    assert reason_of(check_frames, frame_scores(**clip), duration_s, FRAMES) == reason


def barred(pictures, height):
    """Pictures between black bars that fill a square."""
    rest = pictures.shape[-3] - height
    small = pictures[..., rest // 2 : rest // 2 + height, :, :]
    return np.pad(small, [(0, 0)] * (pictures.ndim - 3) + [(rest // 2, rest - rest // 2), (0, 0), (0, 0)])


def test_black_bars_are_no_part_of_the_picture():
    frames = barred(np.stack([noise(1), noise(2)]), 24)
    assert picture_window(*frames) == (0, 20, 80, 44)
    assert picture_window(*frames.transpose(0, 2, 1, 3)) == (20, 0, 44, 80)
    assert picture_window(*np.stack([noise(1), noise(2)])) == (0, 0, 80, 64)


def test_a_dark_scene_has_no_bars():
    vignette = np.linspace(0, 1, 64)[:, None, None] * noise(1) * 0.1
    x0, y0, x1, y1 = picture_window(vignette.astype(np.uint8), vignette.astype(np.uint8))
    assert (x0, x1, y1) == (0, 80, 64)
    assert y0 < 10
    black = np.zeros((64, 80, 3), np.uint8)
    assert picture_window(black, black) == (0, 0, 80, 64)


def test_bars_hide_no_cut():
    shots = np.concatenate([drifting(5), drifting(5, seed=1)])
    between_shots, between_barred = (
        frame_scores(noise(1), noise(2), thumbnails)["jump"] for thumbnails in (shots, barred(shots, 8))
    )
    assert between_barred > 0.6 * between_shots > 0
