"""Supervised training on all references of one source from one seed; the output's name says which: ``sft_rows-0``."""

from pathlib import Path

from mcpipe.train.multi import TrainMultiParams, write_multi
from psr.arms import arm_and_seed


def run(encoded: Path, train_single: Path, generator: Path, model: Path, params: TrainMultiParams) -> None:
    """Write the adapter that continues stage 1, its curves and a report.

    Raises:
        ValueError: the output's name is no arm and seed.
    """
    _, seed = arm_and_seed(model.name)
    write_multi(encoded, train_single, generator, model, params.model_copy(update={"seed": seed}))
