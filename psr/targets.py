"""Targets of synthetic samples, drawn after their prompts; the output's name says of which kind."""

from pathlib import Path

from mcpipe.steps.object_finder import ObjectModels
from mcpipe.steps.synthetic_edits import EditModels
from mcpipe.steps.synthetic_subjects import SubjectModels, kind_of
from mcpipe.steps.synthetic_targets import TargetsParams, TargetsWork, write_targets


def run(  # noqa: PLR0913  one argument per path
    texts: Path, generator: Path, grounder: Path, segmenter: Path, dino: Path, pose: Path, faces: Path, judge: Path,
    targets: Path, params: TargetsParams,
) -> None:  # fmt: skip
    """Write the targets; a second run of an interrupted one goes on where it ended."""
    models = SubjectModels(ObjectModels(grounder, segmenter), dino, pose, faces)
    wanted = params.edits
    edits = EditModels(Path(wanted.editor), judge) if wanted.editor and wanted.share else None
    write_targets(TargetsWork(generator, kind_of(targets), models, params, edits=edits), texts, targets)
