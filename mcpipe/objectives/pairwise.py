"""Pairwise subject consistency (PSR, arXiv:2512.01236): every subject located by its name in both images and compared.

    R = 1/N sum_i cos( f(crop(image, c_i)), f(crop(reference_i, c_i)) ),    f: an embedding such as DINO's

Subject i is paired with reference i by its name c_i; nothing is assigned. A subject, or a reference, that is not
located counts 0 and stays in the mean. Where k references share a name, they take its k most certain boxes in turn.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8

Box = Float[np.ndarray, " 4"]
Detections = tuple[Float[np.ndarray, "found 4"], Float[np.ndarray, " found"]]
"""Boxes ``x0 y0 x1 y1`` in pixels, and their certainties in [0, 1]."""


def boxes_by_name(names: Sequence[str], detections: Mapping[str, Detections]) -> list[Box | None]:
    """The box of each subject among the detections of its own name; ``None`` for a subject without one."""
    own: list[Box | None] = []
    for place, name in enumerate(names):
        boxes, certainties = detections[name]
        rank = list(names[:place]).count(name)
        best_first = np.argsort(-certainties, kind="stable")
        own.append(boxes[best_first[rank]] if rank < len(boxes) else None)
    return own


def crop(picture: UInt8[np.ndarray, "H W 3"], box: Box | None) -> UInt8[np.ndarray, "h w 3"] | None:
    """The part of an image inside a box, cut to whole pixels inside the image; ``None`` if nothing is left."""
    if box is None:
        return None
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = np.clip(box, 0, [width, height, width, height]).astype(int)
    return picture[y0:y1, x0:x1] if x1 > x0 and y1 > y0 else None
