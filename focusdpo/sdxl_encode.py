"""The frozen work on pairs for SDXL with an IP-Adapter, done once."""

from pathlib import Path

from mcpipe.flux.encode import EncodeParams
from mcpipe.steps.encode_sdxl import write_sdxl_pairs
from mcpipe.steps.sdxl_files import SdxlFiles


def run(  # noqa: PLR0913  one argument per path
    dip: Path, pipeline: Path, ip_adapter: Path, image_encoder: Path, encoded: Path, params: EncodeParams
) -> None:
    """Write latents, text embeddings, features of references, masks and weights of every pair."""
    write_sdxl_pairs(dip, SdxlFiles(pipeline, ip_adapter, image_encoder), encoded, params)
