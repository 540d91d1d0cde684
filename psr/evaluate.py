"""The scores of one arm of people, measured as the pipeline measures its own."""

from pathlib import Path

from mcpipe.steps.evaluate import MODELS, EvaluateParams, write_scores


def run(  # noqa: PLR0913  one argument per path
    pairs: Path, images: Path, faces: Path, faces_heldout: Path, clip: Path, dino: Path, hps: Path, results: Path,
    params: EvaluateParams,
) -> None:  # fmt: skip
    """Write the scores per image and their means."""
    models = dict(zip(MODELS, (faces, faces_heldout, clip, dino, hps), strict=True))
    write_scores(pairs, images, models, results, params)
