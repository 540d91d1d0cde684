"""Stage 6: the frozen work of training, done once: latents, text embeddings, masks on the token grid."""

from pathlib import Path

from mcpipe.flux.encode import EncodeParams
from mcpipe.flux.encoded import write_encoded


def run(samples: Path, generator: Path, encode: Path, params: EncodeParams) -> None:
    """Encode every sample, and the empty text beside them in ``empty``."""
    write_encoded(samples, generator, encode, params)
