"""Putting finished checkpoints where git and the pipeline look for them.

The pipeline's DVC must neither see nor rerun the zoo's stages, so checkpoints leave the zoo's own DVC as plain copies.
Their figures and curves are copied once more, to where ``dvc metrics show`` and ``dvc plots show`` of the zoo's DVC
find them also in a fresh clone, in which nothing was built.
"""

import logging
import shutil
from pathlib import Path

from mcpipe.core.shards import whole_folder
from zoo.build.cards import CURVES, FIGURES

logger = logging.getLogger(__name__)

CHECKPOINTS = (
    "pose", "segmenter", "faces", "faces_heldout", "captioner", "judge", "generator", "inpainter", "clip",
    "clip_reward", "dino", "dinov2", "hps", "hps_reward", "hpsv3", "grounder", "sdxl",
)  # fmt: skip
"""Checkpoints that the pipeline and its evaluation use; other results are intermediate."""

LINKS = {
    "sdxl": {
        "vae": "generator/vae", "text_encoder": "generator/text_encoder", "tokenizer": "generator/tokenizer",
        "text_encoder_2": "clip_reward", "tokenizer_2": "clip_reward", "image_encoder": "clip_reward",
    },
}  # fmt: skip
"""Parts of a checkpoint that are other parts of the zoo: links make its folder whole to whoever loads it."""

LARGEST_ZOO_BYTES = 30_000_000
"""What git keeps of all checkpoints together."""


def build(results: Path, zoo: Path, figures: Path) -> None:
    """Copy every checkpoint in ``results`` to ``zoo``, in place of an older one, and all figures to ``figures``.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
        ValueError: the zoo became too large.
    """
    built = [results / name for name in CHECKPOINTS if (results / name).is_dir()]
    if not built:
        raise FileNotFoundError(f"no checkpoint in {results}; run dvc repro first")
    for checkpoint in built:
        with whole_folder(zoo / checkpoint.name) as target:
            shutil.copytree(checkpoint, target, ignore=shutil.ignore_patterns(CURVES), dirs_exist_ok=True)
            for part, other in LINKS.get(checkpoint.name, {}).items():
                (target / part).symlink_to(Path("..", other))
        logger.info("%s: %.2f MB", zoo / checkpoint.name, folder_bytes(zoo / checkpoint.name) / 1e6)
    for measured in results.glob(f"*/{FIGURES}"):
        with whole_folder(figures / measured.parent.name) as target:
            for name in (FIGURES, CURVES):
                shutil.copyfile(measured.with_name(name), target / name)
    total = sum(folder_bytes(zoo / name) for name in CHECKPOINTS)
    logger.info("the zoo: %.2f of %.0f MB", total / 1e6, LARGEST_ZOO_BYTES / 1e6)
    if total > LARGEST_ZOO_BYTES:
        raise ValueError(f"the zoo takes {total / 1e6:.2f} MB, more than {LARGEST_ZOO_BYTES / 1e6:.0f} MB")


def folder_bytes(folder: Path) -> int:
    """Sum of the sizes of the files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
