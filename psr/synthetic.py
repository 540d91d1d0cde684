"""References of synthetic samples: every subject redrawn in another place by the adapter of stage 1, and checked."""

from pathlib import Path

from mcpipe.steps.object_finder import ObjectModels
from mcpipe.steps.synthetic_rows import RedrawWork, SyntheticParams, write_synthetic


def run(  # noqa: PLR0913  one argument per path
    targets: Path, train_single: Path, generator: Path, grounder: Path, segmenter: Path, dino: Path, judge: Path,
    synthetic: Path, params: SyntheticParams,
) -> None:  # fmt: skip
    """Write rows of objects; a second run of an interrupted one goes on where it ended."""
    models = ObjectModels(grounder, segmenter)
    write_synthetic(RedrawWork(generator, train_single, models, dino, judge, params), targets, synthetic)
