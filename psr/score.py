"""The scores of one arm: CLIP-T, DINO-I, CLIP-I, HPS and the controls of DINO-I."""

from pathlib import Path

from mcpipe.steps.evaluate import ObjectScoreParams
from mcpipe.steps.object_finder import ObjectModels
from mcpipe.steps.object_scores import write_object_scores


def run(  # noqa: PLR0913  one argument per path
    prompts: Path, images: Path, grounder: Path, segmenter: Path, clip: Path, dino: Path, hps: Path, results: Path,
    params: ObjectScoreParams,
) -> None:  # fmt: skip
    """Write the scores per image and their means."""
    models = {"clip": clip, "dino": dino, "hps": hps}
    write_object_scores(prompts, images, ObjectModels(grounder, segmenter), models, results, params)
