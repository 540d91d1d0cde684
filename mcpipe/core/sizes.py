"""Sizes of images as texts: ``640x480`` is 640 pixels wide and 480 high."""

import re

Size = tuple[int, int]
"""Width and height in pixels."""


def size_of(text: str) -> Size:
    """The size that a text names.

    Raises:
        ValueError: the text names none.
    """
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise ValueError(f"a size should be WIDTHxHEIGHT in pixels, such as 640x480, not {text!r}")
    return int(match[1]), int(match[2])
