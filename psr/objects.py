"""Training samples from rows of any source; the benchmark of things is held out of the world's rows alone."""

from pathlib import Path

from mcpipe.steps.object_finder import ObjectModels
from mcpipe.steps.objects import ObjectsWork, write_objects
from mcpipe.steps.synthetic_people import PeopleRowsWork, SourceParams
from mcpipe.steps.synthetic_subjects import SubjectModels

WITH_BENCHMARK = "rows"
"""The source of which samples are held out."""
OF_PEOPLE = "people"
"""The source whose references are faces."""


def run(  # noqa: PLR0913  one argument per path
    rows: Path, grounder: Path, segmenter: Path, dino: Path, pose: Path, faces: Path, judge: Path, samples: Path,
    params: SourceParams,
) -> None:  # fmt: skip
    """Write the samples of all usable rows; a second run of an interrupted one goes on where it ended."""
    own = params if samples.name == WITH_BENCHMARK else params.model_copy(update={"num_held_out": 0})
    objects = ObjectModels(grounder, segmenter)
    work = ObjectsWork(objects, judge, own)
    if samples.name == OF_PEOPLE:
        people = SubjectModels(objects, dino, pose, faces)
        work = PeopleRowsWork(models=objects, judge=judge, params=own, people=people)
    write_objects(work, rows, samples)
