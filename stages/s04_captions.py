"""Stage 4: a caption of every target, written with sight of the references."""

from pathlib import Path

from mcpipe.steps.captions import CaptionsParams, CaptionsWork, write_captions


def run(  # noqa: PLR0913  one argument per path
    frames: Path,
    subjects: Path,
    identity: Path,
    captioner: Path,
    tokenizer: Path,
    captions: Path,
    params: CaptionsParams,
) -> None:
    """Write a caption for every verified clip that gets an acceptable one."""
    write_captions(CaptionsWork(captioner, tokenizer, params), frames, subjects, identity, captions)
