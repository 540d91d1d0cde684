"""Checks that the two frames of a clip can show the same people at two moments (paper, appendix C).

The initial frame gives the references, the middle frame the scene to be learned; the shot between them has no cut.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from pydantic import Field

from mcpipe.core.params import Params, RecordsPerShard
from mcpipe.core.records import RejectionError
from mcpipe.curate.sharpness import softness

SOFTNESS_HEIGHT_PX = 256
"""Height in pixels at which the softness of frames is measured, so that it hardly depends on the resolution."""
REACH = np.ones((5, 5), np.uint8)
"""Neighbourhood in which a thumbnail's pixel is searched in the next thumbnail; it allows motion by 6 % of the
image."""
ORDINARY_JUMP = 6.0
"""Minimum ratio of the jump at a cut to the median jump of the frames around it."""
NEIGHBOURS = 8
"""Number of frames on either side from which the median jump is computed."""
FLASH_FRAMES = 3
"""Maximum number of frames of a flash, after which the earlier image comes back."""
LASTING = 0.5
"""Maximum part of the jump that may remain after a flash."""
BAR_GREY, BAR_PART = 20.0, 0.1
"""Maximum brightness of the black bars that a player or an editor puts around an image: an absolute value, and a part
of the image's highlights, since a dark scene is not a bar."""
LEAST_PICTURE = 0.2
"""Minimum part of the frame's height and of its width that remains when bars are cropped."""
EMPTY_CONTRAST = 3.0
"""Standard deviation of grey values below which an image has faded to a single colour."""


class FramesParams(Params):
    """Requirements for the two frames of a clip."""

    min_duration_s: float = Field(ge=0)
    """Minimum number of seconds between the first and the last frame."""
    max_decoded: int = Field(ge=2)
    """Maximum number of frames decoded up to the middle frame; it bounds time and memory."""
    min_side_px: int = Field(ge=1)
    """Minimum of the frames' shorter side."""
    min_brightness: float = Field(ge=0, le=255)
    """Mean grey value below which a frame counts as black."""
    max_softness: float = Field(ge=0, le=1)
    """Softness at 256 px height above which a frame counts as blurred."""
    min_change: float = Field(ge=0, le=255)
    """Mean absolute difference of the two frames below which they are duplicates."""
    max_jump: float = Field(ge=0, le=255)
    """Jump between neighbouring frames at which there is a cut."""
    records_per_shard: RecordsPerShard


def frame_scores(
    initial: UInt8[np.ndarray, "H W 3"], middle: UInt8[np.ndarray, "H W 3"], thumbnails: UInt8[np.ndarray, "T S S 3"]
) -> dict[str, float]:
    """Measurements for `check_frames`: the worse value of the two frames, and the worst value between them."""
    x0, y0, x1, y1 = picture_window(thumbnails[0], thumbnails[-1])
    thumbnails = thumbnails[:, y0:y1, x0:x1]
    lasting = lasting_jumps(thumbnails)
    return {
        "side_px": float(min(initial.shape[:2])),
        "brightness": min(float(initial.mean()), float(middle.mean())),
        "softness": max(softness(initial, SOFTNESS_HEIGHT_PX), softness(middle, SOFTNESS_HEIGHT_PX)),
        "change": float(np.abs(thumbnails[0].astype(np.float64) - thumbnails[-1]).mean()),
        "jump": float(lasting.max(initial=0.0)),
        "contrast": float(thumbnails.mean(axis=3).std(axis=(1, 2)).min()),
    }


def check_frames(scores: dict[str, float], duration_s: float, params: FramesParams) -> None:
    """Check that a clip's frames meet the requirements.

    Raises:
        RejectionError: the frames have a fault; its reason is the name of the first fault.

    """
    faults = (
        (duration_s < params.min_duration_s, "too_short", f"{duration_s:.2f} s"),
        (scores["side_px"] < params.min_side_px, "too_small", f"shorter side of {scores['side_px']:.0f} px"),
        (scores["brightness"] < params.min_brightness, "black", f"mean grey value {scores['brightness']:.1f}"),
        (scores["softness"] > params.max_softness, "blurred", f"softness {scores['softness']:.2f}"),
        (scores["change"] < params.min_change, "duplicate", f"the two frames differ by {scores['change']:.2f}"),
        (scores["jump"] >= params.max_jump, "cut", f"neighbouring frames differ by {scores['jump']:.1f}"),
        (scores["contrast"] < EMPTY_CONTRAST, "cut", "the picture fades away between the two frames"),
    )
    for is_fault, reason, detail in faults:
        if is_fault:
            raise RejectionError(reason, detail)


def picture_window(
    initial: UInt8[np.ndarray, "H W 3"], middle: UInt8[np.ndarray, "H W 3"]
) -> tuple[int, int, int, int]:
    """The window ``(x0, y0, x1, y1)`` of both frames inside black bars, in pixels; all of it without bars.

    With bars, a model would learn them as part of every scene, and the people would look smaller.
    """
    brightest = np.maximum(initial, middle).max(axis=2)
    limit = min(BAR_GREY, BAR_PART * float(np.percentile(brightest, 99)))
    bounds = [_inside(brightest.max(axis=axis) > limit) for axis in (0, 1)]
    (x0, x1), (y0, y1) = bounds
    return x0, y0, x1, y1


def _inside(seen: Bool[np.ndarray, " n"]) -> tuple[int, int]:
    """The range from the first to the last visible line; all lines if the range is too short."""
    lines = np.flatnonzero(seen)
    if not len(lines) or lines[-1] + 1 - lines[0] < LEAST_PICTURE * len(seen):
        return 0, len(seen)
    return int(lines[0]), int(lines[-1]) + 1


def jump(before: UInt8[np.ndarray, "h w 3"], after: UInt8[np.ndarray, "h w 3"]) -> float:
    """Mean part of one image that has no counterpart near the same place in the other, in grey levels.

    A pixel counts by its distance from the range of its neighbourhood in the other image. Motion and small changes of
    light therefore give small values, and a new image gives a large value.
    """
    outside = [
        np.maximum(cv2.subtract(first, cv2.dilate(second, REACH)), cv2.subtract(cv2.erode(second, REACH), first)).mean()
        for first, second in ((before, after), (after, before))
    ]
    return float(np.mean(outside))


def lasting_jumps(thumbnails: UInt8[np.ndarray, "T h w 3"]) -> Float[np.ndarray, " T-1"]:
    """Jump into every frame after the first; 0 where it is no larger than its surroundings or belongs to a flash.

    Fast motion makes many large jumps, a cut makes one, and a flash makes two and brings the earlier image back.
    """
    jumps = np.array([jump(a, b) for a, b in zip(thumbnails, thumbnails[1:], strict=False)])
    lasting = np.zeros_like(jumps)
    for i in np.flatnonzero(jumps >= 1.0):
        around = np.delete(jumps[max(i - NEIGHBOURS, 0) : i + NEIGHBOURS + 1], min(i, NEIGHBOURS))
        if len(around) and jumps[i] < ORDINARY_JUMP * np.median(around):
            continue
        lasting[i] = _lasting(thumbnails, int(i), float(jumps[i]))
    return lasting


def _lasting(thumbnails: UInt8[np.ndarray, "T h w 3"], i: int, size: float) -> float:
    """The jump from frame ``i`` to the next, or 0 if it begins or ends a flash."""
    befores = thumbnails[max(i - FLASH_FRAMES, 0) : i + 1]
    afters = thumbnails[i + 1 : i + 2 + FLASH_FRAMES]
    returned = min(
        [jump(thumbnails[i], after) for after in afters] + [jump(before, thumbnails[i + 1]) for before in befores]
    )
    return size if returned >= LASTING * size else 0.0
