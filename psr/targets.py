"""Targets of synthetic samples: drawn after their prompts, every subject grounded and segmented."""

from pathlib import Path

from mcpipe.steps.object_finder import ObjectModels
from mcpipe.steps.synthetic_targets import TargetsParams, TargetsWork, write_targets


def run(  # noqa: PLR0913  one argument per path
    texts: Path, generator: Path, grounder: Path, segmenter: Path, targets: Path, params: TargetsParams
) -> None:
    """Write the targets; a second run of an interrupted one goes on where it ended."""
    write_targets(TargetsWork(generator, ObjectModels(grounder, segmenter), params), texts, targets)
