"""Stage 7: training stage 1: plain LoRA on one person per image."""

from pathlib import Path

from mcpipe.train.single import TrainSingleParams, write_single


def run(encode: Path, generator: Path, train_single: Path, params: TrainSingleParams) -> None:
    """Write the adapter, its curves and a report; a second run of an interrupted training resumes it."""
    write_single(encode, generator, train_single, params)
