"""How many drawn objects are copies of their references, by what real targets show."""

from pathlib import Path

from mcpipe.steps.object_copies import ObjectCopiesParams, write_copies
from mcpipe.steps.object_finder import ObjectModels


def run(  # noqa: PLR0913  one argument per path
    prompts: Path, images: Path, grounder: Path, segmenter: Path, copying: Path, params: ObjectCopiesParams
) -> None:
    """Write a row per image of the benchmark, and the distance that counts as a copy."""
    write_copies(prompts, images, ObjectModels(grounder, segmenter), copying, params)
