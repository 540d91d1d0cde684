"""What the supervised training stages share: their folders, and who writes into them."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mcpipe.core.shards import whole_folder
from mcpipe.flux.adapters import AdapterSpec, save_adapter
from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.encoders import encode_texts
from mcpipe.train.loop.checkpoint import Checkpoint
from mcpipe.train.loop.curves import curves
from mcpipe.train.loop.data import EncodedSet, Text
from mcpipe.train.loop.fit import OnStep
from mcpipe.train.loop.previews import Painter, with_pictures
from mcpipe.train.loop.runtime import is_main, whole_weights

PICTURES = "pictures"


def with_encoder(data: EncodedSet, pipeline: FluxPipeline) -> EncodedSet:
    """The samples, with a way to embed captions whose embeddings were not stored."""

    def embedded(caption: str) -> Text:
        texts = encode_texts(pipeline, [caption])
        return texts.tokens[0].float().cpu(), texts.pooled[0].float().cpu()

    return replace(data, encoder=embedded)


@contextmanager
def output(out: Path) -> Iterator[Path]:
    """The folder that a process writes to: ``out`` for the main one; what the others write is thrown away."""
    with ExitStack() as stack:
        yield stack.enter_context(whole_folder(out)) if is_main() else Path(stack.enter_context(TemporaryDirectory()))


@contextmanager
def watched(painter: Painter, every: int, checkpoint: Checkpoint, folder: Path) -> Iterator[OnStep]:
    """A callback that writes curves and, unless ``every`` is 0, pictures into an output folder.

    Pictures are kept beside the checkpoint until then: a run that goes on does not have the old weights.
    """
    kept = checkpoint.folder / PICTURES

    def save(num_steps: int, key: str, picture: UInt8[np.ndarray, "S S 3"]) -> None:
        if is_main():
            place = kept / key
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(place / f"{num_steps:06d}.png")

    with curves(folder / "live") as on_step:
        yield with_pictures(painter, every, lambda: checkpoint.num_read, save, on_step) if every else on_step
    if is_main() and kept.is_dir():
        shutil.copytree(kept, folder / PICTURES)


def save_whole_adapter(pipeline: FluxPipeline, spec: AdapterSpec, folder: Path) -> None:
    """Write an adapter's files, however its weights are spread; all processes call it together."""
    with whole_weights(pipeline.transformer):
        if is_main():
            save_adapter(pipeline.transformer, spec, folder)
