"""The benchmark's images of the start: SDXL with its IP-Adapter, before any arm is trained."""

from pathlib import Path

from mcpipe.steps.generate_sdxl import SdxlArm, SdxlDrawParams, write_sdxl_images
from mcpipe.steps.sdxl_files import SdxlFiles


def run(  # noqa: PLR0913  one argument per path
    pairs: Path, samples: Path, pipeline: Path, ip_adapter: Path, image_encoder: Path, images: Path,
    params: SdxlDrawParams,
) -> None:  # fmt: skip
    """Write an image for every prompt of the benchmark, and its controls."""
    files = SdxlFiles(pipeline, ip_adapter, image_encoder)
    write_sdxl_images(pairs, samples, SdxlArm(files, None), images, params)
