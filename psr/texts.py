"""Prompts and captions of synthetic samples from drawn categories; the output's name says of which kind."""

from pathlib import Path

from mcpipe.curate.psr_settings import TextsParams
from mcpipe.steps.synthetic_subjects import kind_of
from mcpipe.steps.synthetic_texts import TextsWork, write_texts


def run(judge: Path, texts: Path, params: TextsParams) -> None:
    """Write the texts; a second run of an interrupted one goes on where it ended."""
    write_texts(TextsWork(judge, kind_of(texts), params), texts)
