"""Stage 1: the initial and the middle frame of every clip in a folder."""

import os
from dataclasses import dataclass
from functools import partial
from hashlib import file_digest
from pathlib import Path

import numpy as np

from mcpipe.core.records import Record, Rejection, record_key
from mcpipe.core.report import Report
from mcpipe.core.shards import whole_folder, write_shards
from mcpipe.curate.frames import FramesParams, frame_fault, frame_scores, picture_window
from mcpipe.curate.scores import Scores
from mcpipe.execution.engine import decided
from mcpipe.execution.store import progress_of
from mcpipe.execution.workers import Decide
from mcpipe.models.video import SUFFIXES, UnusableClipError, read_clip


def run(clips: Path, frames: Path, params: FramesParams) -> None:
    """Write the two frames of every usable clip below ``clips``.

    Raises:
        FileNotFoundError: the folder is missing or holds no clip.

    """
    write(Frames(params), clip_files(clips), frames)


@dataclass(frozen=True)
class Frames:
    """What this stage does to every clip."""

    params: FramesParams

    def load(self) -> Decide:
        """The decision on one clip."""
        return partial(frames_of, params=self.params)


@dataclass(frozen=True)
class ClipFile:
    """A video file by its folder and its path in it."""

    folder: Path
    name: str

    @property
    def file(self) -> Path:
        """The file itself."""
        return self.folder / self.name

    @property
    def title(self) -> str:
        """The name as text, also where a file system holds one that is none."""
        return self.name.encode(errors="surrogateescape").decode(errors="backslashreplace")

    @property
    def key(self) -> str:
        """Made from the title."""
        return record_key(self.title)

    def is_clip(self) -> bool:
        """Whether it is a regular file and called like a video."""
        return self.file.suffix.lower() in SUFFIXES and self.file.is_file()

    def digest(self) -> str:
        """Of the bytes of the file, or of the fault that keeps them from being read."""
        try:
            with self.file.open("rb") as content:
                return file_digest(content, "sha256").hexdigest()
        except OSError as error:
            return str(error.strerror)

    def inputs(self) -> tuple[Path, str]:
        """The file, which the work opens, and its title."""
        return self.file, self.title


def write(work: Frames, clips: list[ClipFile], frames: Path) -> None:
    """Write what becomes of clips."""
    report = Report("frames", ("av", "opencv-python-headless"))
    items = sorted(clips, key=lambda clip: clip.key)
    with whole_folder(frames) as folder:
        write_shards(decided(items, work, report, progress_of(frames)), folder, work.params.records_per_shard)
        report.write(folder)


def clip_files(clips: Path) -> list[ClipFile]:
    """All files of a folder, searched recursively, that are called like videos.

    Raises:
        FileNotFoundError: the folder is missing or holds none.

    """
    if not clips.is_dir():
        raise FileNotFoundError(f"no folder of clips {clips}")
    files = [clip for name in file_names(clips) if (clip := ClipFile(clips, name)).is_clip()]
    if not files:
        raise FileNotFoundError(f"no clip in {clips}; looked for {' '.join(sorted(SUFFIXES))}")
    return files


def file_names(folder: Path) -> list[str]:
    """Paths of everything below a folder that is no folder, sorted.

    Links to folders are followed, each folder is visited once, under its own name rather than that of a link to it.
    """
    names: list[str] = []
    visited: set[Path] = set()
    links = [folder]
    while links:
        later: list[Path] = []
        for link in sorted(links):
            for place, folders, files in os.walk(link):
                here = Path(place)
                if here.resolve() in visited:
                    folders.clear()
                    continue
                visited.add(here.resolve())
                later += [here / name for name in folders if (here / name).is_symlink()]
                names += [(here / name).relative_to(folder).as_posix() for name in files]
        links = later
    return sorted(names)


def frames_of(file: Path, name: str, params: FramesParams) -> Record | Rejection:
    """The two frames of a clip, or why it is refused."""
    try:
        clip = read_clip(file, params.max_decoded)
    except UnusableClipError as error:
        return Rejection(error.reason, error.detail)
    x0, y0, x1, y1 = picture_window(clip.initial, clip.middle)
    initial, middle = (np.ascontiguousarray(frame[y0:y1, x0:x1]) for frame in (clip.initial, clip.middle))
    measured, scores = frame_scores(initial, middle, clip.thumbnails), Scores()
    scores.note(duration_s=clip.duration_s, **measured)
    fault = frame_fault(measured, clip.duration_s, params)
    if fault is not None:
        return scores.rejection(fault)
    return Record(
        key=record_key(name),
        meta={
            "clip": name,
            "times_s": list(clip.times_s),
            "num_frames": clip.num_frames,
            "codec": clip.codec,
            "picture_px": [x0, y0, x1, y1],
            **scores.told,
        },
        arrays={"initial": initial, "middle": middle},
    )
