"""A contact sheet: images with the sentences they were drawn for."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROW_PX = 144
TILE_PX, GAP_PX, COLUMNS = 288, 12, 4
LETTERS_PER_LINE, LINE_PX, LINES = 58, 12, 7


def save_sheet(file: Path, pictures: Sequence[np.ndarray], sentences: Sequence[str]) -> None:
    """Write square images in rows, each above its sentence, as a PNG."""
    pitch = (TILE_PX + GAP_PX, TILE_PX + GAP_PX + LINES * LINE_PX)
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * pitch[0] + GAP_PX, rows * pitch[1] + GAP_PX), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (picture, sentence) in enumerate(zip(pictures, sentences, strict=True)):
        x, y = (GAP_PX + place * step for place, step in zip((index % COLUMNS, index // COLUMNS), pitch, strict=True))
        sheet.paste(Image.fromarray(picture).resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC), (x, y))
        text = "\n".join(textwrap.wrap(sentence, LETTERS_PER_LINE)[:LINES])
        pen.multiline_text((x, y + TILE_PX + 2), text, fill="black", font_size=10, spacing=2)
    sheet.save(file, optimize=True)


def save_rows(file: Path, rows: Sequence[Sequence[np.ndarray]]) -> None:
    """Write rows of square images of any size, enlarged to `ROW_PX`, as a PNG."""
    sheet = Image.new(
        "RGB", (max(map(len, rows)) * (ROW_PX + GAP_PX) + GAP_PX, len(rows) * (ROW_PX + GAP_PX) + GAP_PX), "white"
    )
    for line, row in enumerate(rows):
        for place, image in enumerate(row):
            corner = (GAP_PX + place * (ROW_PX + GAP_PX), GAP_PX + line * (ROW_PX + GAP_PX))
            sheet.paste(Image.fromarray(image).resize((ROW_PX, ROW_PX), Image.Resampling.BICUBIC), corner)
    sheet.save(file, optimize=True)
