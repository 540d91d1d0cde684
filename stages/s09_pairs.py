"""Stage 9: who appears together, and a prompt for every pair."""

from pathlib import Path

from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.faces import InsightFaces
from mcpipe.steps.pairs import PairsParams, write_pairs


def run(faces: Path, analyser: Path, captioner: Path, pairs: Path, params: PairsParams) -> None:
    """Write the usable faces, the benchmark's prompts and the prompts for reinforcement learning.

    Raises:
        FileNotFoundError: the folder of faces is missing or holds no file.
        ValueError: there are too few usable faces, its table is damaged, or no pair has a usable prompt.
    """
    finder = InsightFaces(analyser, params.min_face_score, params.detection_size)
    write_pairs(faces, finder, Qwen2_5VL(captioner), pairs, params)
