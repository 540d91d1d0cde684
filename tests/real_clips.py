"""``mcpipe curate`` with the real pose and face checkpoints of ../shared/real, and stand-ins for what cannot be had.

    python tests/real_clips.py DIR --out OUT [-S section.key=value]

Checkpoints are looked for relative to the root of the project; ``-S models.pose=...`` and ``-S models.faces=...`` name
others.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from stand_ins import KeypointSegmenter, TemplateCaptioner

from mcpipe.cli.__main__ import curation_arguments
from mcpipe.cli.curate import Adapters, command
from mcpipe.core.errors import one_line

REAL = Path(__file__).resolve().parent.parent.parent / "shared" / "real"
POSE = REAL / "ckpt" / "yolov8n-pose.pt"
FACES = REAL / "ckpt" / "insightface" / "models" / "buffalo_sc_int8src"
STAND_INS = Adapters(segmenter=KeypointSegmenter, captioner=TemplateCaptioner)


def main(arguments=None):
    """Curate a folder; returns the exit status."""
    parser = argparse.ArgumentParser(description="mcpipe curate with stand-ins for models that cannot be had")
    curation_arguments(parser)
    options = parser.parse_args(arguments)
    # The stand-in for the segmenter finds its joints with the pose checkpoint.
    chosen = [change.partition("=")[2] for change in options.changes if change.startswith("models.pose=")]
    pose = chosen[-1] if chosen else str(POSE)
    options.changes = [
        f"models.pose={pose}", f"models.segmenter={pose}", f"models.faces={FACES}", *options.changes
    ]  # fmt: skip
    try:
        table = command(options, STAND_INS)
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"error: {one_line(error)}", style="red", markup=False, soft_wrap=True)
        return 1
    Console(soft_wrap=True).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
