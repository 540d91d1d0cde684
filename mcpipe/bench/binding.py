"""Share of each reference's attention that goes to its own face, measured on generated images.

    binding = M_i(box of face i) / sum over located faces j of M_i(box of face j)

where M_i is the attention of reference i to the image and face i the one that stands for it. With two people, chance is
0.5, and the value stays the same when the references change places and the faces with them.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float


def coverage(
    box: Float[np.ndarray, " 4"], size: tuple[int, int], grid: tuple[int, int]
) -> Float[np.ndarray, "rows columns"]:
    """Share of each cell's area that a box (x0, y0, x1, y1, in pixels) covers, for an image of (height, width)."""

    def along(start: float, end: float, length: int, cells: int) -> Float[np.ndarray, " cells"]:
        edges = np.linspace(0, length, cells + 1)
        return np.clip(np.minimum(end, edges[1:]) - np.maximum(start, edges[:-1]), 0, None) / (length / cells)

    x0, y0, x1, y1 = (float(value) for value in box)
    return np.outer(along(y0, y1, size[0], grid[0]), along(x0, x1, size[1], grid[1]))


def binding(
    attention: Float[np.ndarray, "references rows columns"],
    faces: Mapping[int, Float[np.ndarray, " 4"]],
    size: tuple[int, int],
) -> float | None:
    """The mean binding of the references whose faces are located; ``None`` if fewer than two are.

    ``faces`` holds the box of each located face in pixels, by its reference, and ``size`` the image's height and width.
    """
    if len(faces) < 2:
        return None
    rows, columns = attention.shape[1:]
    boxes = {reference: coverage(box, size, (rows, columns)) for reference, box in faces.items()}
    shares = []
    for own in faces:
        on_faces = {face: float((attention[own] * box).sum()) for face, box in boxes.items()}
        shares.append(_share(on_faces, own))
    return float(np.mean(shares))


def _share(on_faces: Mapping[int, float], own: int) -> float:
    """Share of a reference's attention to all faces that its own face gets; the chance level if no face gets any."""
    total = sum(on_faces.values())
    return on_faces[own] / total if total > 0 else 1 / len(on_faces)
