"""The detector of phrases that a folder holds: Florence-2 or Grounding DINO."""

import json
from pathlib import Path

from mcpipe.models.checkpoints import checkpoint_folder
from mcpipe.models.florence import Florence2
from mcpipe.models.grounding import GroundingDino
from mcpipe.models.protocols import Grounder

KINDS = {"florence2": Florence2, "grounding-dino": GroundingDino}
"""Adapter by the model type in a folder's configuration."""


def load_grounder(folder: Path, min_score: float) -> Grounder:
    """Load the detector of a folder, whose boxes have at least the certainty ``min_score``, in [0, 1].

    Raises:
        FileNotFoundError: the folder or one of its parts is missing.
        ValueError: the files are damaged or belong to another model.
    """
    configuration = checkpoint_folder(folder, "grounder", "config.json") / "config.json"
    try:
        kind = json.loads(configuration.read_text(encoding="utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{configuration} is damaged: {type(error).__name__}: {error}") from error
    if kind not in KINDS:
        raise ValueError(f"{folder} is no usable grounder: it holds a {kind} model, not {' or '.join(KINDS)}")
    return KINDS[kind](folder, min_score)
