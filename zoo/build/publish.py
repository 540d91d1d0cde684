"""Putting finished checkpoints where git and the pipeline look for them.

The pipeline's DVC must neither see nor rerun the zoo's stages, so checkpoints leave the zoo's own DVC as plain copies.
"""

import logging
import shutil
from pathlib import Path

from zoo.build.cards import CURVES

logger = logging.getLogger(__name__)

CHECKPOINTS = ("pose", "segmenter", "faces", "captioner", "generator", "clip", "dino", "dinov2", "hps")
"""What the pipeline uses; other results are steps on the way."""


def build(results: Path, zoo: Path) -> None:
    """Copy every checkpoint in ``results`` to ``zoo``, in place of an older one, without its training curves.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    built = [results / name for name in CHECKPOINTS if (results / name).is_dir()]
    if not built:
        raise FileNotFoundError(f"no checkpoint in {results}; run dvc repro first")
    for checkpoint in built:
        target = zoo / checkpoint.name
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(checkpoint, target, ignore=shutil.ignore_patterns(CURVES))
        size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
        logger.info("%s: %.2f MB", target, size / 1e6)
