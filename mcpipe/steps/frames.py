"""The initial and the middle frame of every clip in a folder."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mcpipe.core.records import RejectionError, record_key
from mcpipe.core.report import Report
from mcpipe.core.schemas.curation import FramePair
from mcpipe.curate.clips import ClipFile, title_of
from mcpipe.curate.frames import FramesParams, check_frames, frame_scores, picture_window
from mcpipe.curate.scores import Scores
from mcpipe.execution.engine import write_decided
from mcpipe.execution.workers import Decide
from mcpipe.models.video import read_clip


@dataclass(frozen=True)
class FramesWork:
    """What this stage does to every clip."""

    params: FramesParams

    def load(self) -> Decide:
        """The decision on one clip."""
        return partial(frames_of, params=self.params)


def write_frames(work: FramesWork, clips: list[ClipFile], frames: Path) -> None:
    """Write the two frames of every usable clip, in the order of keys."""
    items = sorted(clips, key=lambda clip: clip.key)
    report = Report("frames", ("av", "opencv-python-headless"))
    write_decided(items, work, report, frames, work.params.records_per_shard)


def frames_of(file: Path, name: str, params: FramesParams) -> FramePair:
    """The two frames of a clip.

    Raises:
        RejectionError: the file cannot be decoded, or its frames are unusable.
    """
    if not file.is_file():
        raise RejectionError("not_a_file", "neither a file nor a link to one")
    clip = read_clip(file, params.max_decoded)
    x0, y0, x1, y1 = picture_window(clip.initial, clip.middle)
    initial, middle = (np.ascontiguousarray(frame[y0:y1, x0:x1]) for frame in (clip.initial, clip.middle))
    measured, scores = frame_scores(initial, middle, clip.thumbnails), Scores()
    scores.note(duration_s=clip.duration_s, **measured)
    with scores.kept():
        check_frames(measured, clip.duration_s, params)
    return FramePair(
        key=record_key(name),
        clip=title_of(name),
        times_s=clip.times_s,
        num_frames=clip.num_frames,
        codec=clip.codec,
        picture_px=(x0, y0, x1, y1),
        scores=scores.measured,
        initial=initial,
        middle=middle,
    )
