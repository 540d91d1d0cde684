"""Log of all rollouts: scores of every image, and previews of the same prompts over the training."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mcpipe.core.records import JSON
from mcpipe.train.loop.runtime import is_main

SCORES = "rewards.jsonl"
PREVIEWS = "pictures"


@dataclass(frozen=True)
class ImageScores:
    """Unweighted scores of one image of a rollout."""

    iteration: int
    place: int
    """Index of the group in its iteration."""
    prompt: str
    """Key of the prompt."""
    picture: int
    """Index of the image in its group."""
    text: float
    aesthetic: float
    identity: float
    heldout: float
    """Multi-ID alignment by the held-out scorer."""
    advantage: float
    semantic: float | None = None
    """Score of the judge, NaN if it gave no valid one; ``None`` without a judge."""

    def to_record(self) -> dict[str, JSON]:
        """The scores as a line of ``rewards.jsonl``; a missing semantic score is null."""
        record: dict[str, JSON] = dict(vars(self))
        if self.semantic is None:
            del record["semantic"]
        elif math.isnan(self.semantic):
            record["semantic"] = None
        return record


@dataclass(frozen=True)
class RolloutLog:
    """One file per iteration, kept beside the checkpoint until the training ends.

    An iteration that is repeated after an interruption overwrites its file with the same content.
    """

    folder: Path

    def scores(self, iteration: int, scores: Sequence[ImageScores]) -> None:
        """Write the scores of all images of an iteration."""
        if is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps(score.to_record()) + "\n" for score in scores)
            (self.folder / f"{iteration:06d}.jsonl").write_text(lines, encoding="utf-8")

    def previews(self, iteration: int, images: Sequence[UInt8[np.ndarray, "H W 3"]]) -> None:
        """Write the previews before an iteration, side by side; lower ones end in white."""
        if is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            height = max(image.shape[0] for image in images)
            level = [
                np.pad(image, ((0, height - image.shape[0]), (0, 0), (0, 0)), constant_values=255) for image in images
            ]
            Image.fromarray(np.concatenate(level, axis=1)).save(self.folder / f"{iteration:06d}.png")

    def export(self, out: Path) -> None:
        """Write all scores as one file; previews one file per iteration and as a grid with one row per iteration."""
        (out / SCORES).write_text(
            "".join(file.read_text(encoding="utf-8") for file in sorted(self.folder.glob("*.jsonl"))), encoding="utf-8"
        )
        previews = sorted(self.folder.glob("*.png"))
        if previews:
            (out / PREVIEWS).mkdir()
            grid = np.concatenate([np.asarray(Image.open(file)) for file in previews])
            Image.fromarray(grid).save(out / PREVIEWS / "grid.png")
            for file in previews:
                shutil.copy(file, out / PREVIEWS / file.name)
