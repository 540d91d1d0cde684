"""The frozen work on pairs, done once."""

from pathlib import Path

from mcpipe.flux.encode import EncodeParams
from mcpipe.steps.encode_pairs import write_encoded_pairs


def run(dip: Path, generator: Path, encoded: Path, params: EncodeParams) -> None:
    """Write latents, text embeddings, masks and weights of every pair."""
    write_encoded_pairs(dip, generator, encoded, params)
