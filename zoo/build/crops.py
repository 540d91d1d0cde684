"""Squares and face crops of rendered frames."""

import cv2
import numpy as np

from mcpipe.world.scene import RenderedFrame
from mcpipe.world.setting import FAR, Framing

FRAME = (320, 240)
"""Width and height of the clips' frames."""

SQUARE = 240
"""Side of a square, in pixels."""


def square_left(frame: RenderedFrame, rng: np.random.Generator, framing: Framing = FAR) -> int:
    """Left edge in pixels of a square of full height: around everybody, or the middle one if it holds all faces."""
    if framing.faces_in_square:
        return (FRAME[0] - SQUARE) // 2
    boxes = np.array([person.box for person in frame.people if person.box is not None])
    middle = 0.5 * (boxes[:, 0].min() + boxes[:, 2].max()) + rng.normal(0, 4)
    return int(np.clip(round(middle - SQUARE / 2), 0, FRAME[0] - SQUARE))


def face_crop(picture: np.ndarray, face_box: np.ndarray, scale: float, size: int) -> np.ndarray:
    """A square around a face, ``scale`` times the longer side of its box, on white where the image ends."""
    x0, y0, x1, y1 = face_box
    side = scale * max(x1 - x0, y1 - y0)
    corner = np.array([0.5 * (x0 + x1) - side / 2, 0.5 * (y0 + y1) - side / 2])
    left, top = np.floor(corner).astype(int)
    length = max(round(side), 2)
    edge = length  # enough for a face that touches the border
    padded = cv2.copyMakeBorder(picture, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=(255, 255, 255, 0))
    cut = padded[max(top + edge, 0) : top + edge + length, max(left + edge, 0) : left + edge + length]
    shrinks = length > size
    return cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def on_white(four: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A reference (H, W, 4) as an image: its person cut out on white, or as it was taken."""
    return four[..., :3] if rng.random() < 0.5 else cut_out(four)


def cut_out(four: np.ndarray) -> np.ndarray:
    """A reference (H, W, 4) as an image of its person on white."""
    share = four[..., 3:].astype(np.float32) / 255
    return np.round(four[..., :3] * share + 255 * (1 - share)).astype(np.uint8)


def jittered(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same image moved, scaled and brightened a little, now and then softened as generated images are."""
    size = len(picture)
    scale = float(rng.uniform(0.95, 1.08))
    move = size / 2 * (1 - scale) + rng.normal(0, 0.015 * size, 2)
    matrix = np.array([[scale, 0, move[0]], [0, scale, move[1]]])
    picture = cv2.warpAffine(np.ascontiguousarray(picture), matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    if rng.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.3, 1.5)))
    return cv2.convertScaleAbs(picture, alpha=float(rng.uniform(0.92, 1.08)), beta=float(rng.uniform(0, 8)))
