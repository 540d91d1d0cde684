"""Output folders of the training stages, and which process writes into them."""

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
from mcpipe.train.loop.previews import PreviewSampler, with_previews
from mcpipe.train.loop.runtime import is_main, trained_weights

PREVIEWS = "pictures"
"""Folder of the previews, in the output and, until then, beside the checkpoint."""


def with_encoder(data: EncodedSet, pipeline: FluxPipeline) -> EncodedSet:
    """The samples with a text encoder for captions whose embeddings were not stored."""

    def encode(caption: str) -> Text:
        texts = encode_texts(pipeline, [caption])
        return texts.tokens[0].float().cpu(), texts.pooled[0].float().cpu()

    return replace(data, encoder=encode)


@contextmanager
def output_folder(out: Path) -> Iterator[Path]:
    """The folder a process writes to: ``out`` for the main process, a temporary one for all others."""
    with ExitStack() as stack:
        yield stack.enter_context(whole_folder(out)) if is_main() else Path(stack.enter_context(TemporaryDirectory()))


@contextmanager
def training_log(sampler: PreviewSampler, every: int, checkpoint: Checkpoint, folder: Path) -> Iterator[OnStep]:
    """A callback that writes curves and, unless ``every`` is 0, previews into an output folder.

    Previews are kept beside the checkpoint until the end, because a resumed run no longer has the earlier weights.
    """
    previews = checkpoint.folder / PREVIEWS

    def save(num_steps: int, key: str, image: UInt8[np.ndarray, "S S 3"]) -> None:
        if is_main():
            subfolder = previews / key
            subfolder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(subfolder / f"{num_steps:06d}.png")

    with curves(folder / "live") as on_step:
        yield with_previews(sampler, every, lambda: checkpoint.num_read, save, on_step) if every else on_step
    if is_main() and previews.is_dir():
        shutil.copytree(previews, folder / PREVIEWS)


def save_gathered_adapter(pipeline: FluxPipeline, spec: AdapterSpec, folder: Path) -> None:
    """Write an adapter's files, sharded or not; all processes call it together, the main process writes."""
    weights = trained_weights(pipeline.transformer)
    if is_main():
        save_adapter(pipeline.transformer, spec, folder, weights)
