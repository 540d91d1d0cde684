"""Captions and prompts of earlier stages that an encoder of the generator cannot read in one piece."""

from collections.abc import Iterator
from pathlib import Path

from mcpipe.cli.doctor.findings import Finding
from mcpipe.core.errors import one_line
from mcpipe.core.schemas.benchmark import PairPrompt
from mcpipe.core.schemas.curation import ClipCaption
from mcpipe.core.shards import read_shards
from mcpipe.models.text_limit import CLIP_FOLDER, FOLDER, ClipWindows, T5Limit

NUM_NAMED = 3
"""Keys of texts that a message names."""


def text_rows(generator: Path, data: Path) -> Iterator[Finding]:
    """Check that the texts of a data folder fit the text encoders of a generator; nothing where that is not there.

    T5 cuts what is too long, so that the last person of a caption may be lost: a note. CLIP reads it in windows.
    """
    if not (generator / FOLDER).is_dir() or not (generator / CLIP_FOLDER).is_dir():
        return
    try:
        t5, clip = T5Limit(generator / FOLDER), ClipWindows(generator / CLIP_FOLDER)
        texts = dict(stored_texts(data))
    except (ValueError, OSError) as error:
        yield Finding("texts", "problem", one_line(error))
        return
    limits = f"T5 reads {t5.max_tokens} tokens and cuts, CLIP {clip.max_tokens} and takes several windows"
    if not texts:
        yield Finding("texts", "ok", f"none yet in {data}; {limits}")
        return
    lost = {key: end for key, text in texts.items() if (end := t5.lost(text))}
    several = sum(len(clip.windows(text)) > 1 for text in texts.values())
    message = f"{len(texts)} captions and prompts, {several} in several windows of CLIP ({clip.max_tokens} tokens)"
    if not lost:
        yield Finding("texts", "ok", f"{message}, none cut by T5 ({t5.max_tokens})")
        return
    first = ", ".join(f"{key} without {end!r}" for key, end in list(lost.items())[:NUM_NAMED])
    yield Finding("texts", "note", f"{message}, {len(lost)} cut by T5 ({t5.max_tokens}): {first}")


def stored_texts(data: Path) -> Iterator[tuple[str, str]]:
    """Names and texts of all captions, and of all prompts for stage 3 and the benchmark."""
    if (data / "captions").is_dir():
        yield from ((f"caption {item.key}", item.caption) for item in read_shards(data / "captions", ClipCaption))
    for part in ("rl", "bench"):
        folder = data / "pairs" / part
        if folder.is_dir():
            yield from ((f"prompt {item.key}", item.prompt) for item in read_shards(folder, PairPrompt))
