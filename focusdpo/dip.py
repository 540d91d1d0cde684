"""Pairs of images that differ in their subjects alone."""

from pathlib import Path

from mcpipe.steps.dip import DipParams, DipWork, write_dip


def run(  # noqa: PLR0913  one argument per path
    samples: Path, start: Path, generator: Path, inpainter: Path, faces: Path, pose: Path, segmenter: Path, dip: Path,
    params: DipParams,
) -> None:  # fmt: skip
    """Write a pair for every image of the samples that passes."""
    write_dip(DipWork(start, generator, inpainter, faces, pose, segmenter, params), samples, dip)
