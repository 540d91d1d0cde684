"""Stage 2 on objects: all references, with attention regularisation on the masks of whole objects."""

from pathlib import Path

from mcpipe.train.multi import TrainMultiParams, write_multi


def run(encoded: Path, train_single: Path, generator: Path, model: Path, params: TrainMultiParams) -> None:
    """Write the adapter that continues stage 1, its curves, attention maps before and after, and a report."""
    write_multi(encoded, train_single, generator, model, params)
