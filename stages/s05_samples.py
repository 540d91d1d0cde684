"""Stage 5: training samples: references, square target, masks, caption, provenance, split."""

from pathlib import Path

from mcpipe.curate.samples import SamplesParams
from mcpipe.steps.samples import SamplesWork, write_samples


def run(frames: Path, subjects: Path, identity: Path, captions: Path, samples: Path, params: SamplesParams) -> None:
    """Write a sample for every captioned clip, split by identity."""
    write_samples(SamplesWork(params), (frames, subjects, identity, captions), samples)
