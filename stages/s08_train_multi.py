"""Stage 8: training stage 2: experts and attention regularisation on several people per image."""

from pathlib import Path

from mcpipe.train.multi import TrainMultiParams, write_multi


def run(encode: Path, train_single: Path, generator: Path, train_multi: Path, params: TrainMultiParams) -> None:
    """Write the adapter that continues stage 1, its curves, attention maps before and after, and a report."""
    write_multi(encode, train_single, generator, train_multi, params)
