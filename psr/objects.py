"""Training samples from rows of either source; the benchmark is held out of the world's rows alone."""

from pathlib import Path

from mcpipe.curate.objects import ObjectsParams
from mcpipe.steps.object_finder import ObjectModels
from mcpipe.steps.objects import ObjectsWork, write_objects

WITH_BENCHMARK = "rows"
"""The source of which samples are held out."""


def run(  # noqa: PLR0913  one argument per path
    rows: Path, grounder: Path, segmenter: Path, judge: Path, samples: Path, params: ObjectsParams
) -> None:
    """Write the samples of all usable rows; a second run of an interrupted one goes on where it ended."""
    own = params if rows.name == WITH_BENCHMARK else params.model_copy(update={"num_held_out": 0})
    write_objects(ObjectsWork(ObjectModels(grounder, segmenter), judge, own), rows, samples)
