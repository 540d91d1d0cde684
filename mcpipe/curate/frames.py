"""Whether the two frames of a clip can show the same people at two moments (paper, appendix C).

The initial frame gives the references, the middle frame the scene to be learned.
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from pydantic import Field

from mcpipe.params import Params

SHARPNESS_HEIGHT_PX = 256
"""Height at which the sharpness of frames is measured."""
ORDINARY_CHANGE = 4.0
"""A cut changes the picture by at least this many times the clip's median change from frame to frame."""


class FramesParams(Params):
    """What a clip's two frames must be like."""

    min_duration_s: float = Field(ge=0)
    """Seconds between the first and the last frame."""
    min_brightness: float = Field(ge=0, le=255)
    """Mean grey value below which a frame counts as black."""
    min_sharpness: float = Field(ge=0)
    """Variance of the Laplacian at 256 px height below which a frame counts as blurred."""
    min_change: float = Field(ge=0, le=255)
    """Mean absolute difference of the two frames below which they are duplicates."""
    max_jump: float = Field(ge=0, le=255)
    """Mean absolute difference of neighbouring frames at which there is a cut."""
    records_per_shard: int = Field(ge=1)


def frame_fault(
    initial: UInt8[np.ndarray, "H W 3"],
    middle: UInt8[np.ndarray, "H W 3"],
    thumbnails: UInt8[np.ndarray, "T S S 3"],
    duration_s: float,
    params: FramesParams,
) -> tuple[str, str] | None:
    """Why a clip is refused by its frames, as a reason and a detail, or ``None`` if it is not."""
    if duration_s < params.min_duration_s:
        return "too_short", f"{duration_s:.2f} s"
    for name, frame in (("initial", initial), ("middle", middle)):
        if (brightness := float(frame.mean())) < params.min_brightness:
            return "black", f"{name} frame has mean {brightness:.1f}"
        if (sharp := sharpness(frame, SHARPNESS_HEIGHT_PX)) < params.min_sharpness:
            return "blurred", f"{name} frame has sharpness {sharp:.1f}"
    jumps = changes(thumbnails)
    if (change := float(np.abs(thumbnails[0].astype(float) - thumbnails[-1]).mean())) < params.min_change:
        return "duplicate", f"the two frames differ by {change:.2f}"
    if jumps.max() >= max(params.max_jump, ORDINARY_CHANGE * float(np.median(jumps))):
        return "cut", f"frame {int(jumps.argmax()) + 1} differs from the one before by {jumps.max():.1f}"
    return None


def sharpness(picture: UInt8[np.ndarray, "H W 3"], height_px: int) -> float:
    """Variance of the Laplacian of the grey picture, scaled to a height first, so that resolution matters little."""
    scale = height_px / picture.shape[0]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    grey = cv2.cvtColor(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=method), cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def changes(thumbnails: UInt8[np.ndarray, "T S S 3"]) -> Float[np.ndarray, " T-1"]:
    """Mean absolute difference of every frame from the one before, in grey levels."""
    return np.abs(np.diff(thumbnails.astype(np.float64), axis=0)).mean(axis=(1, 2, 3))
