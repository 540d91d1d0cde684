"""Where the parts of SDXL with an IP-Adapter lie."""

from dataclasses import dataclass
from pathlib import Path

from mcpipe.sdxl.backbone import StableDiffusionXLPipeline, load_sdxl


@dataclass(frozen=True)
class SdxlFiles:
    """Where the backbone lies."""

    pipeline: Path
    """Folder of a StableDiffusionXLPipeline."""
    ip_adapter: Path
    """File of the IP-Adapter's weights."""
    image_encoder: Path
    """Folder of its CLIP vision model."""

    def load(self) -> StableDiffusionXLPipeline:
        """The pipeline with its IP-Adapter.

        Raises:
            FileNotFoundError: a part is missing.
            ValueError: a part is damaged or of another kind.
        """
        return load_sdxl(self.pipeline, self.ip_adapter, self.image_encoder)
