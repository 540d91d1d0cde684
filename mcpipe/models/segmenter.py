"""Masks by a SAM 2 checkpoint, prompted with boxes."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jaxtyping import Bool, Float

from mcpipe.models.checkpoints import device_name, loaded
from mcpipe.models.protocols import Picture, Segmenter

if TYPE_CHECKING:
    from sam2.sam2_image_predictor import SAM2ImagePredictor

INFERENCE = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}
"""Settings that sam2.build_sam.build_sam2 adds to the mask decoder for inference."""


class ClipSegmenter(Segmenter, Protocol):
    """A segmenter that also processes several frames of a clip in a batch."""

    def masks_of(
        self, pictures: Sequence[Picture], boxes: Sequence[Float[np.ndarray, "P 4"]]
    ) -> list[Bool[np.ndarray, "P H W"]]:
        """One raw mask per box of each image; the images are encoded in one batch."""
        ...


class Sam2:
    """A segmenter from a folder with a model configuration (``*.yaml``) and its checkpoint (``*.pt``) by SAM 2."""

    def __init__(self, folder: Path) -> None:
        """Load the checkpoint on the best available device.

        Raises:
            FileNotFoundError: the folder lacks the configuration or the checkpoint, or has several.
            ValueError: the two do not fit each other or are damaged.

        """
        config, checkpoint = _only(folder, "*.yaml"), _only(folder, "*.pt")
        self._predictor = loaded(lambda: _load(config, checkpoint), folder, "SAM 2 model")

    def masks(self, picture: Picture, boxes: Float[np.ndarray, "P 4"]) -> Bool[np.ndarray, "P H W"]:
        """One mask per box, raw."""
        return self.masks_of([picture], [boxes])[0]

    def masks_of(
        self, pictures: Sequence[Picture], boxes: Sequence[Float[np.ndarray, "P 4"]]
    ) -> list[Bool[np.ndarray, "P H W"]]:
        """One raw mask per box of each image; the images are encoded in one batch."""
        if not all(len(some) for some in boxes):
            pairs = zip(pictures, boxes, strict=True)
            return [self.masks(picture, some) if len(some) else _none(picture) for picture, some in pairs]
        self._predictor.set_image_batch([picture.copy() for picture in pictures])  # torch needs writable arrays
        masks, _, _ = self._predictor.predict_batch(box_batch=list(boxes), multimask_output=False)
        return [
            np.asarray(raw, dtype=np.float32).reshape(len(some), *picture.shape[:2]) > 0
            for picture, some, raw in zip(pictures, boxes, masks, strict=True)
        ]


def _none(picture: Picture) -> Bool[np.ndarray, "0 H W"]:
    return np.zeros((0, *picture.shape[:2]), np.bool_)


def _only(folder: Path, pattern: str) -> Path:
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise FileNotFoundError(f"segmenter folder {folder} should hold exactly one {pattern}, found {len(files)}")
    return files[0]


def _load(config: Path, checkpoint: Path) -> "SAM2ImagePredictor":
    import torch
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    # The predictor scripts its resizing, which torch has deprecated.
    warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
    settings = OmegaConf.load(config)
    OmegaConf.resolve(settings)
    settings.model.sam_mask_decoder_extra_args = INFERENCE
    model = instantiate(settings.model, _recursive_=True)
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["model"]
    model.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    )
    predictor = SAM2ImagePredictor(model.eval().to(device_name()))
    # The predictor assumes images of 1024 pixels; its feature maps are 4, 8 and 16 times smaller than the real size.
    predictor._bb_feat_sizes = [(model.image_size // step,) * 2 for step in (4, 8, 16)]
    return predictor
