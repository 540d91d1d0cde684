"""References of synthetic samples: every subject redrawn in another place, and checked.

The adapter redraws, or the editing model that ``synthetic.editor`` names; the adapter is not read then.
"""

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
    editor = Path(params.editor) if params.editor else None
    work = RedrawWork(generator, adapter, kind_of(synthetic), models, judge, params, editor=editor)
    write_synthetic(work, targets, synthetic)
