"""Training samples from rows of objects: grounded, segmented, filtered, split."""

from pathlib import Path

from mcpipe.curate.objects import ObjectsParams
from mcpipe.steps.object_finder import ObjectModels
from mcpipe.steps.objects import ObjectsWork, write_objects


def run(  # noqa: PLR0913  one argument per path
    rows: Path, grounder: Path, segmenter: Path, judge: Path, samples: Path, params: ObjectsParams
) -> None:
    """Write the samples of all usable rows; a second run of an interrupted one goes on where it ended."""
    write_objects(ObjectsWork(ObjectModels(grounder, segmenter), judge, params), rows, samples)
