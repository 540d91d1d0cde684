"""Stage 1 on objects: one reference per image."""

from pathlib import Path

from mcpipe.train.single import TrainSingleParams, write_single


def run(encoded: Path, generator: Path, model: Path, params: TrainSingleParams) -> None:
    """Write the adapter, its curves and a report; a second run of an interrupted training resumes it."""
    write_single(encoded, generator, model, params)
