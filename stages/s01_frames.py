"""Stage 1: the initial and the middle frame of every clip in a folder."""

from pathlib import Path

from mcpipe.curate.clips import clip_files
from mcpipe.curate.frames import FramesParams
from mcpipe.steps.frames import FramesWork, write_frames


def run(clips: Path, frames: Path, params: FramesParams) -> None:
    """Write the two frames of every usable clip below ``clips``.

    Raises:
        FileNotFoundError: the folder is missing or holds no clip.

    """
    write_frames(FramesWork(params), clip_files(clips), frames)
