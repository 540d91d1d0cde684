"""The model of human preference that a folder holds: HPSv3 or HPS v2.1."""

from pathlib import Path
from typing import Literal

from mcpipe.models.checkpoints import checkpoint_folder
from mcpipe.models.protocols import PreferenceScorer
from mcpipe.models.scorers.hps import HpsV2_1
from mcpipe.models.scorers.hpsv3 import CHECKPOINT, HpsV3


def preference_name(folder: Path) -> Literal["HPSv3", "HPS v2.1"]:
    """The model's published name, by the weights in its folder.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    return "HPSv3" if any(checkpoint_folder(folder, "preference model").glob(CHECKPOINT)) else "HPS v2.1"


def load_preference(folder: Path) -> PreferenceScorer:
    """Load the model of a folder.

    Raises:
        FileNotFoundError: the folder or one of its parts is missing.
        ValueError: the files are damaged or belong to another model.
    """
    return HpsV3(folder) if preference_name(folder) == "HPSv3" else HpsV2_1(folder)
