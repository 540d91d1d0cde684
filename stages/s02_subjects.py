"""Stage 2: the people of both frames: boxes, keypoints and masks."""

from pathlib import Path

from mcpipe.curate.subjects import SubjectsParams
from mcpipe.steps.subjects import SubjectsWork, write_subjects


def run(frames: Path, pose: Path, segmenter: Path, subjects: Path, params: SubjectsParams) -> None:
    """Write the people of every clip with the required number of people in both frames."""
    write_subjects(SubjectsWork(pose, segmenter, params), frames, subjects)
