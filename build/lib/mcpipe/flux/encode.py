"""Training samples as the generator sees them: latents, text embeddings and masks on the token grid.

All of it is frozen work, done once instead of in every training step.
"""

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from mcpipe.core.params import Params, RecordsPerShard
from mcpipe.core.records import Record
from mcpipe.flux.backbone import FluxPipeline
from mcpipe.flux.encoders import encode_pictures, encode_texts
from mcpipe.flux.tokens import Grid, layout

EMPTY = "_empty"
"""Key of the record that holds the embeddings of the empty text."""


class EncodeParams(Params):
    """How samples become training inputs."""

    min_mask_fraction: float = Field(gt=0, le=1)
    """Part of a token that a mask must cover for the token to count as inside."""
    cache_texts: bool
    """Store text embeddings, too; otherwise training embeds its captions step by step."""
    records_per_shard: RecordsPerShard


def encoded_sample(pipeline: FluxPipeline, sample: Record, params: EncodeParams) -> Record:
    """What training needs of a sample.

    Raises:
        ValueError: the sample lacks pictures or masks, or its pictures do not fit the generator.
    """
    _check(sample)
    target, faces = sample.arrays["target"], sample.arrays["faces"]
    image_size, reference_size = target.shape[0], faces.shape[1]
    grid = layout(pipeline, image_size, reference_size).image
    caption = sample.text("caption")
    return Record(
        sample.key,
        {
            "caption": caption,
            "split": sample.text("split"),
            "image_size": image_size,
            "reference_size": reference_size,
        },
        {
            "latents": _array(encode_pictures(pipeline, target[None]))[0],
            "reference_latents": _array(encode_pictures(pipeline, faces)),
            "face_masks": token_masks(sample.arrays["face_masks"], grid, params.min_mask_fraction),
            "body_masks": token_masks(sample.arrays["body_masks"], grid, params.min_mask_fraction),
            **(_embeddings(pipeline, caption) if params.cache_texts else {}),
        },
    )


def encoded_empty(pipeline: FluxPipeline) -> Record:
    """The embeddings of the empty text, which training sometimes puts in place of a caption."""
    return Record(EMPTY, {}, _embeddings(pipeline, ""))


def token_masks(
    masks: Bool[np.ndarray, "subjects height width"], grid: Grid, min_fraction: float
) -> Bool[np.ndarray, "subjects rows columns"]:
    """Masks on the token grid: tokens covered by at least ``min_fraction``; if there are none, all that are touched."""
    rows, columns = grid
    covered = masks.reshape(len(masks), rows, masks.shape[1] // rows, columns, masks.shape[2] // columns).mean((2, 4))
    inside = covered >= min_fraction
    return np.where(inside.any((1, 2), keepdims=True), inside, covered > 0)


def _check(sample: Record) -> None:
    arrays = sample.arrays
    missing = {"target", "faces", "face_masks", "body_masks"} - arrays.keys()
    if missing:
        raise ValueError(f"sample {sample.key} lacks {', '.join(sorted(missing))}; run the stage samples again")
    faces, *masks = (len(arrays[name]) for name in ("faces", "face_masks", "body_masks"))
    if not 0 < faces == masks[0] == masks[1]:
        raise ValueError(
            f"sample {sample.key} has {faces} references, {masks[0]} face masks and {masks[1]} body masks; there "
            "should be one of each per person"
        )
    for name in ("face_masks", "body_masks"):
        if arrays[name].shape[1:] != arrays["target"].shape[:2]:
            raise ValueError(
                f"sample {sample.key}: {name} measure {arrays[name].shape[1:]} pixels, its target "
                f"{arrays['target'].shape[:2]}"
            )


def _embeddings(pipeline: FluxPipeline, text: str) -> dict[str, Float[np.ndarray, "..."]]:
    texts = encode_texts(pipeline, [text])
    return {"prompt_embeds": _array(texts.tokens)[0], "pooled": _array(texts.pooled)[0]}


def _array(tensor: Tensor) -> Float[np.ndarray, "..."]:
    return tensor.float().cpu().numpy()
