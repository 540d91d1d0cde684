"""The verb ``mcpipe world``: a contact sheet of the puppet world."""

import argparse
from pathlib import Path

from mcpipe.cli.outputs import Output, check_outputs, write_pictures
from mcpipe.world.preview import preview_sheet


def command(options: argparse.Namespace) -> str:
    """Write a contact sheet of the puppet world; returns a summary.

    Raises:
        ValueError: the file's ending names no image format, the file is a folder, or the seed is negative.
        OSError: the file cannot be written.
    """
    file: Path = options.preview
    check_outputs([Output("--preview", file, "picture")], {})
    if options.seed < 0:
        raise ValueError(f"a seed should be 0 or more, not {options.seed}")
    sheet = preview_sheet(options.seed)
    write_pictures({file: sheet}, optimize=True)
    return f"{file}: the puppet world of seed {options.seed}, {sheet.width} x {sheet.height} pixels"
