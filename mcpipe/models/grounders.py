"""The detector of phrases that a folder holds, of either class."""

import json
from pathlib import Path

from mcpipe.models.checkpoints import checkpoint_folder
from mcpipe.models.grounding import GroundingDino
from mcpipe.models.protocols import Grounder


def load_grounder(folder: Path, min_score: float) -> Grounder:
    """Load Grounding DINO, whose boxes have at least the certainty ``min_score``.

    Raises:
        FileNotFoundError: the folder or one of its parts is missing.
        ValueError: the files are damaged or belong to another model.
    """
    configuration = checkpoint_folder(folder, "grounder", "config.json") / "config.json"
    try:
        json.loads(configuration.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{configuration} is damaged: {error}") from error
    return GroundingDino(folder, min_score)
