"""Stage 12: scores of one arm's images, per image and as means with intervals."""

from pathlib import Path

from mcpipe.steps.evaluate import MODELS, REWARD_MODELS, EvaluateParams, write_scores


def run(  # noqa: PLR0913  one argument per path in dvc.yaml
    pairs: Path,
    images: Path,
    faces: Path,
    faces_heldout: Path,
    clip: Path,
    dino: Path,
    hps: Path,
    reward_clip: Path,
    reward_hps: Path,
    results: Path,
    params: EvaluateParams,
) -> None:
    """Write ``metrics.json``, its ``headline.json``, a row per image in ``rows.parquet``, and the report.

    Raises:
        ValueError: a benchmark prompt has no image or an image no prompt.
    """
    models = dict(zip(MODELS, (faces, faces_heldout, clip, dino, hps), strict=True))
    models |= dict(zip(REWARD_MODELS, (reward_clip, reward_hps), strict=True))
    write_scores(pairs, images, models, results, params)
