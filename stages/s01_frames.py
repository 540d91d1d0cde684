"""Stage 1: the initial and the middle frame of every clip in a folder."""

from pathlib import Path

from mcpipe.curate.frames import FramesParams, frame_fault
from mcpipe.engine import kept
from mcpipe.models.video import SUFFIXES, UnusableClipError, read_clip
from mcpipe.records import Record, Rejection, record_key
from mcpipe.report import Report
from mcpipe.shards import whole_folder, write_shards


def run(clips: Path, frames: Path, params: FramesParams) -> None:
    """Write the two frames of every usable clip below ``clips``.

    Raises:
        FileNotFoundError: the folder is missing or holds no clip.

    """
    files = clip_files(clips)
    report = Report("frames", ("av", "opencv-python-headless"))

    def decide(file: Path) -> Record | Rejection:
        return frames_of(file, clips, params)

    items = [(record_key(str(file.relative_to(clips))), file) for file in files]
    with whole_folder(frames) as folder:
        write_shards(kept(sorted(items), len(items), decide, report), folder, params.records_per_shard)
        report.write(folder)


def clip_files(clips: Path) -> list[Path]:
    """All files of a folder, searched recursively, that are called like videos.

    Raises:
        FileNotFoundError: the folder is missing or holds none.

    """
    if not clips.is_dir():
        raise FileNotFoundError(f"no folder of clips {clips}")
    files = sorted(file for file in clips.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise FileNotFoundError(f"no clip in {clips}; looked for {' '.join(sorted(SUFFIXES))}")
    return files


def frames_of(file: Path, clips: Path, params: FramesParams) -> Record | Rejection:
    """The two frames of a clip, or why it is refused."""
    try:
        clip = read_clip(file)
    except UnusableClipError as error:
        return Rejection(error.reason, error.detail)
    fault = frame_fault(clip.initial, clip.middle, clip.thumbnails, clip.duration_s, params)
    if fault is not None:
        return Rejection(*fault)
    name = str(file.relative_to(clips))
    return Record(
        key=record_key(name),
        meta={
            "clip": name,
            "times_s": list(clip.times_s),
            "duration_s": clip.duration_s,
            "num_frames": clip.num_frames,
            "codec": clip.codec,
        },
        arrays={"initial": clip.initial, "middle": clip.middle},
    )
