"""The frozen work of training, done once."""

from pathlib import Path

from mcpipe.flux.encode import EncodeParams
from mcpipe.flux.encoded import write_encoded


def run(samples: Path, generator: Path, encoded: Path, params: EncodeParams) -> None:
    """Write latents, text embeddings and masks of every sample."""
    write_encoded(samples, generator, encoded, params)
