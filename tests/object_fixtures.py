"""Rows of coloured boxes, and a grounder and a segmenter that know colours: for what is done with their answers.

They are loaded like the adapters that they stand in for, from a path, and can be imported by other processes.
"""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mcpipe.curate.objects import ObjectsParams
from mcpipe.steps.object_finder import ObjectFinder, ObjectModels

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "yellow": (240, 220, 40)}
GREY = 128
SIDE = 48
NEAR = 60
"""Distance of a colour in 8-bit steps up to which it is the named one."""

OBJECTS = {
    "min_score": 0.5, "max_same_box": 0.7, "max_mask_overlap": 0.3, "min_mask_fill": 0.3, "min_share": 0.01,
    "questions": [], "image_size": 32, "reference_size": 16, "num_held_out": 2, "split": "row", "seed": 0,
    "thumbnails": 1, "records_per_shard": 4,
}  # fmt: skip


def objects_params(**changes):
    return ObjectsParams(**(OBJECTS | changes))


def scene(*boxes, side=SIDE):
    """An image of boxes ``(colour, x0, y0, x1, y1)`` on grey."""
    picture = np.full((side, side, 3), GREY, np.uint8)
    for colour, x0, y0, x1, y1 in boxes:
        picture[y0:y1, x0:x1] = COLOURS[colour]
    return picture


def encoded(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def row(first="red", second="blue", number=0, **changes):
    """A row of two boxes as Parquet has it; ``number`` moves them, so that every row has objects of its own."""
    shift = number % 8
    target = scene((first, 2 + shift, 4, 16 + shift, 20), (second, 26, 10 + shift, 44, 30 + shift))
    cells = {
        "cond_img_0": {"bytes": encoded(scene((first, 8, 8 + shift, 30, 40))), "path": None},
        "cond_img_1": {"bytes": encoded(scene((second, 10, 6, 40, 30 + shift))), "path": None},
        "cond_prompt_0": f"{first} box", "cond_prompt_1": f"{second} box",
        "tgt_img": {"bytes": encoded(target), "path": None},
        "prompt": f"a {first} box and a {second} box",
    }  # fmt: skip
    return cells | changes


def write_rows(folder, rows, per_file=4, per_group=2):
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(rows), per_file):
        table = pa.Table.from_pylist(rows[start : start + per_file])
        pq.write_table(table, folder / f"rows-{start:03d}.parquet", row_group_size=per_group)


class ColourGrounder:
    """Finds the box of the pixels whose colour a phrase names."""

    def boxes(self, picture, phrase):
        colour = next((rgb for name, rgb in COLOURS.items() if name in phrase.split()), (0, 0, 0))
        near = np.abs(picture.astype(int) - colour).max(axis=2) < NEAR
        if not near.any():
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
        box = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32)
        return box, np.array([0.9], np.float32)


class ColourSegmenter:
    """The pixels of a box that are not grey."""

    def masks(self, picture, boxes):
        coloured = np.abs(picture.astype(int) - GREY).max(axis=2) > NEAR
        masks = np.zeros((len(boxes), *picture.shape[:2]), bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
            mask[y0:y1, x0:x1] = coloured[y0:y1, x0:x1]
        return masks


def load_colour_grounder(_folder, _min_score):
    return ColourGrounder()


def load_colour_segmenter(_folder):
    return ColourSegmenter()


def finder(size=16):
    return ObjectFinder(ColourGrounder(), ColourSegmenter(), 0.5, size)


def stand_in_models(folder):
    """Stand-ins in the place of models, whose files lie in a folder."""
    for name in ("grounder", "segmenter"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return ObjectModels(folder / "grounder", folder / "segmenter", load_colour_grounder, load_colour_segmenter)
