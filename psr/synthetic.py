"""References of synthetic samples: every subject redrawn in another place by an adapter, and checked."""

from pathlib import Path

from mcpipe.steps.object_finder import ObjectModels
from mcpipe.steps.synthetic_rows import RedrawWork, SyntheticParams, write_synthetic
from mcpipe.steps.synthetic_subjects import SubjectModels, kind_of


def run(  # noqa: PLR0913  one argument per path
    targets: Path, adapter: Path, generator: Path, grounder: Path, segmenter: Path, dino: Path, pose: Path,
    faces: Path, judge: Path, synthetic: Path, params: SyntheticParams,
) -> None:  # fmt: skip
    """Write rows of the kind that the output's name says; a second run of an interrupted one goes on where it ended."""
    models = SubjectModels(ObjectModels(grounder, segmenter), dino, pose, faces)
    write_synthetic(RedrawWork(generator, adapter, kind_of(synthetic), models, judge, params), targets, synthetic)
